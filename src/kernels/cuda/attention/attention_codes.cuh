// What products do with codes of quantised caches: four codes of a word become two pairs of bf16 by
// their bits alone. Scales go to scores and weights.
//
// Bytes 0 and 2 of a word are one pair, 1 and 3 the other: this is how ldmatrix, which moves 16
// bits at a time, and products fit together without exchanging anything between lanes.
//   keys: a lane is given elements 4c .. 4c + 3 of a key, c = lane % 4, where products want pairs
//     from 2c and from 2c + 8 on. So queries are brought to this order: of each 16 elements the
//     even ones, then the odd ones.
//   values: transposed, a lane is given elements 2n, 2n + 1 of keys 2c, 2c + 1, n = lane / 4: a
//     pair of keys in an even column, and one in an odd column. So even columns of 16 are one tile
//     of sums, odd ones the next.
#pragma once

#include "kernels/cuda/attention/codes.cuh"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {

__device__ inline __nv_bfloat162 as_pair(uint32_t bits) {
  return *reinterpret_cast<const __nv_bfloat162*>(&bits);
}
__device__ inline uint32_t bits_of(__nv_bfloat162 pair) {
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// CodePairs<Code>::widen(codes, even, odd): the pairs of a word. Codes with exponents keep them in
// the wider field, where they say 2^-120 of what they are worth: queries and weights are multiplied
// by kFactor and sums by kSumFactor for that, so that f32 holds what is in between.
template <typename Code>
struct CodePairs;

template <>
struct CodePairs<E4M3> {
  static constexpr float kFactor = 0x1p64F;
  static constexpr float kSumFactor = 0x1p56F;

  __device__ static void widen(uint32_t codes, uint32_t& even, uint32_t& odd) {
    constexpr uint32_t kMagnitude = 0x07F007F0;
    constexpr uint32_t kSign = 0x80008000;
    even = (codes << 4 & kMagnitude) | (codes << 8 & kSign);
    odd = (codes >> 4 & kMagnitude) | (codes & kSign);
  }
};

template <>
struct CodePairs<I8> {
  static constexpr float kFactor = 1.0F;
  static constexpr float kSumFactor = 1.0F;

  __device__ static void widen(uint32_t codes, uint32_t& even, uint32_t& odd) {
    even = widen_low(codes);
    odd = widen_low(codes >> 8);
  }

 private:
  // The low seven bits are the mantissa of 128 + x, the sign is the exponent of 128 or 256.
  __device__ static uint32_t widen_low(uint32_t codes) {
    constexpr uint32_t k128 = 0x43004300;
    constexpr uint32_t kMinus128 = 0xC300C300;
    return bits_of(
        __hadd2(as_pair((codes & 0x007F007F) | k128), as_pair((codes & 0x00800080) | kMinus128)));
  }
};

// 16 elements of a query, from `row` on, to what keys of codes are multiplied by.
template <typename Code>
__device__ inline void prepare_query(void* row) {
  auto* vectors = static_cast<uint4*>(row);
  const uint4 first = vectors[0];
  const uint4 second = vectors[1];
  const __nv_bfloat162 factor = __float2bfloat162_rn(CodePairs<Code>::kFactor);
  const auto scaled = [&](uint32_t a, uint32_t b, uint32_t order) {
    return bits_of(__hmul2(as_pair(__byte_perm(a, b, order)), factor));
  };
  const auto half = [&](uint32_t order) {
    return uint4{scaled(first.x, first.y, order),
                 scaled(first.z, first.w, order),
                 scaled(second.x, second.y, order),
                 scaled(second.z, second.w, order)};
  };
  vectors[0] = half(0x5410);  // even elements
  vectors[1] = half(0x7632);  // odd ones
}

}  // namespace lamina::kernels::cuda
