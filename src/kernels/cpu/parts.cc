// Kilobytes in a decode step: the exchange that precedes these costs far more, so they are plain
// loops that the compiler turns into vector code.
#include "kernels/cpu/parts.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/checked_math.h"

namespace lamina::kernels::cpu {
namespace {

float widen(float value) {
  return value;
}
float widen(Float16 value) {
  return to_f32(value);
}
float widen(BFloat16 value) {
  return to_f32(value);
}
void narrow(float value, float& to) {
  to = value;
}
void narrow(float value, Float16& to) {
  to = to_f16(value);
}
void narrow(float value, BFloat16& to) {
  to = to_bf16(value);
}

template <typename T>
void sum_row(std::span<const TensorView> parts, const TensorView& out, int64_t row) {
  constexpr int64_t kTile = 256;  // sums that stay in the first-level cache
  float sums[kTile];
  const int64_t width = out.row_elements();
  for (int64_t begin = 0; begin < width; begin += kTile) {
    const int64_t count = std::min(kTile, width - begin);
    for (int64_t i = 0; i < count; ++i) sums[i] = widen(parts[0].row<T>(row)[begin + i]);
    for (const TensorView& part : parts.subspan(1)) {
      const T* values = part.row<T>(row) + begin;
      for (int64_t i = 0; i < count; ++i) sums[i] += widen(values[i]);
    }
    T* to = out.row<T>(row) + begin;
    for (int64_t i = 0; i < count; ++i) narrow(sums[i], to[i]);
  }
}

template <typename T>
void sum_typed(std::span<const TensorView> parts, const TensorView& out, ThreadPool& pool) {
  constexpr int64_t kMinElements = 16 * 1024;
  const auto sum_rows = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) sum_row<T>(parts, out, row);
  };
  pool.parallel_for(out.shape[0],
                    ceil_div(kMinElements, std::max<int64_t>(1, out.row_elements())),
                    [&sum_rows](int64_t begin, int64_t end) { sum_rows(begin, end); });
}

}  // namespace

void sum_parts(std::span<const TensorView> parts, const TensorView& out, ThreadPool& pool) {
  switch (out.dtype) {
    case DType::kF32:
      return sum_typed<float>(parts, out, pool);
    case DType::kF16:
      return sum_typed<Float16>(parts, out, pool);
    case DType::kBF16:
      return sum_typed<BFloat16>(parts, out, pool);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "sum_parts of a dtype that is no float");
}

void join_columns(std::span<const TensorView> parts, const TensorView& out, ThreadPool& /*pool*/) {
  const size_t element_bytes = dtype_bytes(out.dtype);
  for (size_t r = 0; r < parts.size(); ++r) {
    const TensorView& part = parts[r];
    for (int64_t row = 0; row < out.shape[0]; ++row) {
      const auto from = static_cast<size_t>(row * part.row_stride) * element_bytes;
      const auto to = static_cast<size_t>(row * out.row_stride) * element_bytes;
      std::memcpy(out.data + to + r * part.row_bytes(), part.data + from, part.row_bytes());
    }
  }
}

}  // namespace lamina::kernels::cpu
