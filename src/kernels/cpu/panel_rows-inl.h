// What products with panels of 16 rows do around their loops: vectors of any float dtype, the bias
// of a panel's rows, and storing their sums.
#pragma once

#include <algorithm>

#include "kernels/cpu/avx512-inl.h"
#include "tensor/tensor_view.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu::avx512 {

HWY_INLINE __m512 load_lanes(const float* p) {
  return _mm512_loadu_ps(p);
}
HWY_INLINE __m512 load_lanes(const BFloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
HWY_INLINE __m512 load_lanes(const Float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

template <typename T>
__m512 load_bias(const TensorView& bias, int64_t row, int64_t count) {
  alignas(64) T padded[kLanes] = {};
  std::copy_n(bias.row<T>(row), std::min(count, kLanes), padded);
  return load_lanes(padded);
}
// Of min(count, kLanes) rows from `row` on; zeros without a bias.
inline __m512 load_bias(const TensorView& bias, int64_t row, int64_t count) {
  if (bias.empty()) return _mm512_setzero_ps();
  switch (bias.dtype) {
    case DType::kF16:
      return load_bias<Float16>(bias, row, count);
    case DType::kBF16:
      return load_bias<BFloat16>(bias, row, count);
    default:
      return load_bias<float>(bias, row, count);
  }
}

// out[token][row + i] = sums[i], i < min(count, kLanes).
inline void store_row(
    const TensorView& out, __m512 sums, int64_t token, int64_t row, int64_t count) {
  switch (out.dtype) {
    case DType::kF16:
      _mm256_mask_storeu_epi16(out.row<Float16>(token) + row,
                               first_lanes(count),
                               _mm512_cvtps_ph(sums, _MM_FROUND_TO_NEAREST_INT));
      return;
    case DType::kBF16:
      return store_upto(sums, out.row<BFloat16>(token) + row, count);
    default:
      return store_upto(sums, out.row<float>(token) + row, count);
  }
}

}  // namespace lamina::kernels::cpu::avx512
LAMINA_END_AVX512
