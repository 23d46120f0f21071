// The kind of elements that launches know a dtype by. Host code.
#pragma once

#include "base/check.h"
#include "kernels/cuda/element_kind.h"
#include "tensor/dtype.h"

namespace lamina::kernels::cuda {

// CHECKs that the dtype is a float.
inline ElementKind element_kind(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return ElementKind::kF32;
    case DType::kF16:
      return ElementKind::kF16;
    case DType::kBF16:
      return ElementKind::kBF16;
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "no float dtype");
}

}  // namespace lamina::kernels::cuda
