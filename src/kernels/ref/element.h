// Elements of a view as f32, whatever its dtype (codes without their scale): slow and obvious, for
// ref/ and for tests.
#pragma once

#include "base/check.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::ref {

// Element `i` of index `row` of axis 0.
inline float get(const TensorView& view, int64_t row, int64_t i) {
  switch (view.dtype) {
    case DType::kF32:
      return view.row<float>(row)[i];
    case DType::kF16:
      return to_f32(view.row<Float16>(row)[i]);
    case DType::kBF16:
      return to_f32(view.row<BFloat16>(row)[i]);
    case DType::kI8:
      return to_f32(view.row<int8_t>(row)[i]);
    case DType::kF8E4M3:
      return to_f32(view.row<Float8E4M3>(row)[i]);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "not a float dtype");
}

inline void put(const TensorView& view, int64_t row, int64_t i, float value) {
  switch (view.dtype) {
    case DType::kF32:
      view.row<float>(row)[i] = value;
      return;
    case DType::kF16:
      view.row<Float16>(row)[i] = to_f16(value);
      return;
    case DType::kBF16:
      view.row<BFloat16>(row)[i] = to_bf16(value);
      return;
    case DType::kI8:
      view.row<int8_t>(row)[i] = to_i8(value);
      return;
    case DType::kF8E4M3:
      view.row<Float8E4M3>(row)[i] = to_e4m3(value);
      return;
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "not a float dtype");
}

}  // namespace lamina::kernels::ref
