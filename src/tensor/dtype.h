// DType: element types of tensors, and conversions between f32 and the 16-bit floats. Plain values.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace lamina {

enum class DType : uint8_t { kF32, kF16, kBF16, kI32, kU8 };

constexpr size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kU8:
      return 1;
  }
  return 0;
}

// "float32", "float16", "bfloat16", "int32", "uint8": the names of Hugging Face and of --dtype.
std::string_view dtype_name(DType dtype);
// Reads what dtype_name() writes. kInvalidArgument otherwise.
Result<DType> parse_dtype(std::string_view name);

// Storage of one bfloat16 (upper half of an f32).
struct BFloat16 {
  uint16_t bits = 0;
};
// Storage of one IEEE half.
struct Float16 {
  uint16_t bits = 0;
};

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

}  // namespace lamina
