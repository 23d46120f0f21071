// DType: element types of tensors, and conversions between f32 and the 16-bit floats. Plain values.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace lamina {

// kI8 and kF8E4M3 are codes of quantised KV caches, worth something only with a scale beside them.
enum class DType : uint8_t { kF32, kF16, kBF16, kI32, kU8, kI8, kF8E4M3 };

constexpr bool is_quantized(DType dtype) {
  return dtype == DType::kI8 || dtype == DType::kF8E4M3;
}

constexpr size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      return 1;
  }
  return 0;
}

// "float32", "float16", "bfloat16", "int32", "uint8", "int8", "float8_e4m3fn": the names of Hugging
// Face and of --dtype.
std::string_view dtype_name(DType dtype);
// Reads what dtype_name() writes, but for codes. kInvalidArgument otherwise.
Result<DType> parse_dtype(std::string_view name);

// Storage of one bfloat16 (upper half of an f32).
struct BFloat16 {
  uint16_t bits = 0;
};
// Storage of one IEEE half.
struct Float16 {
  uint16_t bits = 0;
};
// Storage of one 8-bit float of 4 bits of exponent and 3 of mantissa, without infinities ("fn").
struct Float8E4M3 {
  uint8_t bits = 0;
};
inline constexpr float kLargestE4M3 = 448.0F;

inline float to_f32(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}
inline float to_f32(Float16 value) {
  return static_cast<float>(std::bit_cast<_Float16>(value.bits));
}
inline float to_f32(float value) {
  return value;
}

// Round to nearest even; NaN stays NaN.
inline BFloat16 to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return {static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16)};
}
inline Float16 to_f16(float value) {
  return {std::bit_cast<uint16_t>(static_cast<_Float16>(value))};
}

inline float to_f32(int8_t value) {
  return static_cast<float>(value);
}
// Exponents are shifted up by a product, which treats subnormals right. NaN: 0x7F and 0xFF.
inline float to_f32(Float8E4M3 value) {
  const uint32_t magnitude = value.bits & 0x7FU;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x80U) << 24;
  if (magnitude == 0x7F) return std::bit_cast<float>(0x7FC00000U);
  return std::bit_cast<float>(
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 20) * 0x1p120F) | sign);
}

// Round to nearest even; beyond +-127, or +-448, the largest of that sign. `value` is a number.
inline int8_t to_i8(float value) {
  return static_cast<int8_t>(std::nearbyint(std::clamp(value, -127.0F, 127.0F)));
}
// Subnormals are never made: below 2^-6, the least that is normal, numbers go to it or to zero,
// whichever is nearer. Readers then need no case for them; of a row scaled to 448 it is 2^-15.
inline Float8E4M3 to_e4m3(float value) {
  constexpr uint32_t kSmallest = 0x3C800000;  // 2^-6 as f32
  constexpr uint32_t kHalf = 0x3C000000;
  const auto bits = std::bit_cast<uint32_t>(std::clamp(value, -kLargestE4M3, kLargestE4M3));
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude <= kHalf) return {};
  const uint32_t normal = std::max(magnitude, kSmallest);
  const uint32_t rounded = (normal + 0x7FFFFU + ((normal >> 20) & 1U)) >> 20;
  return {static_cast<uint8_t>((rounded - (120U << 3)) | (bits >> 24 & 0x80U))};
}

template <typename T>
T from_f32(float value);
template <>
inline float from_f32<float>(float value) {
  return value;
}
template <>
inline BFloat16 from_f32<BFloat16>(float value) {
  return to_bf16(value);
}
template <>
inline Float16 from_f32<Float16>(float value) {
  return to_f16(value);
}

template <>
inline int8_t from_f32<int8_t>(float value) {
  return to_i8(value);
}
template <>
inline Float8E4M3 from_f32<Float8E4M3>(float value) {
  return to_e4m3(value);
}

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType kValue = DType::kF32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType kValue = DType::kBF16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType kValue = DType::kF16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType kValue = DType::kI32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType kValue = DType::kU8;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType kValue = DType::kI8;
};
template <>
struct DTypeOf<Float8E4M3> {
  static constexpr DType kValue = DType::kF8E4M3;
};

}  // namespace lamina
