// Vector helpers of the kernels that need more than Highway's AVX-512 target: products of pairs of
// bf16 (uses_bf16_dot()) and of int8 (uses_int8_dot()). Everything between LAMINA_BEGIN_AVX512 and
// LAMINA_END_AVX512 is compiled for these instructions; what is included from elsewhere is not, so
// that no inline function of others needs them. Pointers need the alignment of their element, no
// more.
#pragma once

#include <hwy/base.h>
#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "tensor/dtype.h"

#define LAMINA_BEGIN_AVX512 \
  HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma,f16c")
#define LAMINA_END_AVX512 HWY_POP_ATTRIBUTES

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu::avx512 {

inline constexpr int64_t kLanes = 16;          // f32 of a vector
inline constexpr int64_t kPairs = 2 * kLanes;  // bf16 of a vector

HWY_INLINE __mmask32 first_pairs(int64_t count) {
  return count >= kPairs ? ~__mmask32{0} : (__mmask32{1} << count) - 1;
}
HWY_INLINE __mmask16 first_lanes(int64_t count) {
  return count >= kLanes ? static_cast<__mmask16>(0xFFFF)
                         : static_cast<__mmask16>((1U << count) - 1);
}

HWY_INLINE __m512i load_bf16(const BFloat16* p) {
  return _mm512_loadu_si512(p);
}
// The elements of the mask, zeros in place of others.
HWY_INLINE __m512i load_bf16(__mmask32 mask, const BFloat16* p) {
  return _mm512_maskz_loadu_epi16(mask, p);
}
// Codes of quantised caches as bf16, exactly, without their scale.
HWY_INLINE __m512i load_bf16(const int8_t* p) {
  const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m512 lower = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(codes)));
  const __m512 upper = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(codes, 1)));
  return std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(upper, lower));
}
// Mantissas move up, exponents are counted from 127 instead of 7. Subnormals, which to_e4m3() does
// not make, come out wrong; zeros do not.
HWY_INLINE __m512i load_bf16(const Float8E4M3* p) {
  const __m512i codes =
      _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  const __mmask32 is_number = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x7F));
  const __m512i moved = _mm512_and_si512(_mm512_slli_epi16(codes, 4),
                                         _mm512_set1_epi16(static_cast<int16_t>(0x87F0)));
  return _mm512_maskz_add_epi16(is_number, moved, _mm512_set1_epi16(120 << 7));
}

// sums[i] + a[2i] b[2i] + a[2i+1] b[2i+1]. Denormals count as zeros.
HWY_INLINE __m512 dot_pairs(__m512 sums, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sums, std::bit_cast<__m512bh>(a), std::bit_cast<__m512bh>(b));
}
// The four bytes at p in every lane.
HWY_INLINE __m512i broadcast_4(const void* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof(bytes));
  return _mm512_set1_epi32(bytes);
}
// The pair at p in every lane.
HWY_INLINE __m512i broadcast_pair(const BFloat16* p) {
  return broadcast_4(p);
}

HWY_INLINE __m256i round_to_bf16(__m512 v) {
  return std::bit_cast<__m256i>(_mm512_cvtneps_pbh(v));
}
// The first min(count, kLanes) elements.
HWY_INLINE void store_upto(__m512 v, float* p, int64_t count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), v);
}
HWY_INLINE void store_upto(__m512 v, BFloat16* p, int64_t count) {
  _mm256_mask_storeu_epi16(p, first_lanes(count), round_to_bf16(v));
}
HWY_INLINE void store_upto(__m128 v, float* p, int64_t count) {
  _mm_mask_storeu_ps(p, static_cast<__mmask8>(first_lanes(count) & 0xF), v);
}
HWY_INLINE void store_upto(__m128 v, BFloat16* p, int64_t count) {
  const auto rounded = std::bit_cast<__m128i>(_mm_cvtneps_pbh(v));
  _mm_mask_storeu_epi16(p, static_cast<__mmask8>(first_lanes(count) & 0xF), rounded);
}

struct Add {
  static HWY_INLINE __m512 of(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
  static HWY_INLINE __m256 of(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
  static HWY_INLINE __m128 of(__m128 a, __m128 b) { return _mm_add_ps(a, b); }
};
struct Max {
  static HWY_INLINE __m512 of(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
  static HWY_INLINE __m256 of(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
  static HWY_INLINE __m128 of(__m128 a, __m128 b) { return _mm_max_ps(a, b); }
};
// Lane i of the result: the lanes of v_i combined, in an order that is the same for all four.
template <typename Combine>
HWY_INLINE __m128 combine_lanes_of_4(__m512 v0, __m512 v1, __m512 v2, __m512 v3) {
  const __m512d pair01 =
      _mm512_castps_pd(Combine::of(_mm512_unpacklo_ps(v0, v1), _mm512_unpackhi_ps(v0, v1)));
  const __m512d pair23 =
      _mm512_castps_pd(Combine::of(_mm512_unpacklo_ps(v2, v3), _mm512_unpackhi_ps(v2, v3)));
  const __m512 quads = Combine::of(_mm512_castpd_ps(_mm512_unpacklo_pd(pair01, pair23)),
                                   _mm512_castpd_ps(_mm512_unpackhi_pd(pair01, pair23)));
  const __m256 halves =
      Combine::of(_mm512_castps512_ps256(quads), _mm512_extractf32x8_ps(quads, 1));
  return Combine::of(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

// 2^(x - top) for an integer `top` >= x, within 2^-22 of itself. What is rounded does not depend on
// `top`: for another one the result is another by a power of two, exactly. A polynomial (Cephes).
HWY_INLINE __m512 exp2_below(__m512 x, __m512 top) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);  // exact
  __m512 sum = _mm512_set1_ps(1.5353362e-4F);
  for (const float coefficient :
       {1.3398874e-3F, 9.6184374e-3F, 5.5503325e-2F, 0.24022648F, 0.6931472F, 1.0F}) {
    sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(coefficient));
  }
  return _mm512_scalef_ps(sum, _mm512_sub_ps(n, top));
}

// rows[i] lane j <-> rows[j] lane i, of 32-bit lanes.
HWY_INLINE void transpose_16x16(__m512i (&rows)[16]) {
  __m512i a[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {  // pairs of lanes
    a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  __m512i b[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // b[i + j]: lane j of each quarter of rows i to i + 3
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {  // quarters q of b[0 + j], b[4 + j], b[8 + j], b[12 + j]
    const __m512i even01 = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88);
    const __m512i odd01 = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xDD);
    const __m512i even23 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
    const __m512i odd23 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xDD);
    rows[j] = _mm512_shuffle_i32x4(even01, even23, 0x88);
    rows[4 + j] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
    rows[8 + j] = _mm512_shuffle_i32x4(even01, even23, 0xDD);
    rows[12 + j] = _mm512_shuffle_i32x4(odd01, odd23, 0xDD);
  }
}

}  // namespace lamina::kernels::cpu::avx512
LAMINA_END_AVX512
