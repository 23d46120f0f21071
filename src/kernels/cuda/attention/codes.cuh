// Codes of quantised caches on the device: numbers to codes and back, and the scale of a row, bit
// for bit as tensor/dtype.h and cpu/row_scale.h have them. Needs nothing but CUDA.
#pragma once

#include <cmath>
#include <cstdint>

namespace lamina::kernels::cuda {

struct E4M3 {
  static constexpr float kRange = 448.0F;
  uint8_t bits;
};
struct I8 {
  static constexpr float kRange = 127.0F;
  int8_t value;
};

template <typename T>
inline constexpr bool is_code = false;
template <>
inline constexpr bool is_code<E4M3> = true;
template <>
inline constexpr bool is_code<I8> = true;

__host__ __device__ inline float widen(I8 code) {
  return static_cast<float>(code.value);
}
__host__ __device__ inline float widen(E4M3 code) {
  const int exponent = code.bits >> 3 & 15;
  const int mantissa = code.bits & 7;
  if ((code.bits & 0x7F) == 0x7F) return NAN;
  const float magnitude = exponent == 0 ? static_cast<float>(mantissa) / 512.0F
                                        : static_cast<float>((8 + mantissa) << exponent) / 1024.0F;
  return (code.bits & 0x80) != 0 ? -magnitude : magnitude;
}

// Of a number; rounded to nearest even, the largest code where it is larger.
template <typename Code>
__device__ Code to_code(float value);
template <>
__device__ inline I8 to_code<I8>(float value) {
  return {static_cast<int8_t>(rintf(fminf(fmaxf(value, -I8::kRange), I8::kRange)))};
}
// Below the least that is normal, 2^-6, to that or to zero, whichever is nearer.
template <>
__device__ inline E4M3 to_code<E4M3>(float value) {
  constexpr uint32_t kSmallest = 0x3C800000;  // 2^-6
  constexpr uint32_t kHalf = 0x3C000000;
  const uint32_t bits = __float_as_uint(fminf(fmaxf(value, -E4M3::kRange), E4M3::kRange));
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude <= kHalf) return {0};
  const uint32_t normal = max(magnitude, kSmallest);
  const uint32_t rounded = (normal + 0x7FFFFU + (normal >> 20 & 1U)) >> 20;
  return {static_cast<uint8_t>((rounded - (120U << 3)) | (bits >> 24 & 0x80U))};
}

struct RowScale {
  float scale;    // a code times this is what was appended, nearly
  float inverse;  // what was appended times this is to be rounded to a code; 0: codes are 0
};

// Of a row whose largest magnitude is `largest`; an infinity or a NaN if not all are numbers.
template <typename Code>
__device__ RowScale row_scale(float largest) {
  constexpr float kLargestFloat = 3.402823466e+38F;
  constexpr float kTooSmall = 0x1p-96F;
  if (!(largest <= kLargestFloat)) return {__uint_as_float(0x7FC00000U), 0.0F};
  if (largest < kTooSmall) return {0.0F, 0.0F};
  return {__fdiv_rn(largest, Code::kRange), __fdiv_rn(Code::kRange, largest)};
}

}  // namespace lamina::kernels::cuda
