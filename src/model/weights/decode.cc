#include "model/weights/decode.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "model/weights/dequantize.h"

namespace lamina {
namespace {

// Halves by integer arithmetic, which compilers turn into vectors: without F16C in the baseline
// the language's own conversion is a library call for each element.
float half_to_f32(uint16_t half) {
  const uint32_t magnitude = half & 0x7FFFU;
  // The exponent's bias grows by 112; a multiplication also normalises what is below normal.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
  const uint32_t not_finite = magnitude >= 0x7C00 ? 0x7F800000U : 0;
  const uint32_t sign = (half & 0x8000U) << 16;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | not_finite | sign);
}

uint16_t half_from_f32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  const uint32_t normal = (magnitude - (112U << 23) + 0xFFFU + ((magnitude >> 13) & 1U)) >> 13;
  // Below 2^-14: adding 0.5 shifts the mantissa to where a half has it, rounded by the hardware.
  const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) -
                         std::bit_cast<uint32_t>(0.5F);
  const uint32_t large = magnitude > 0x7F800000U ? 0x7E00U : 0x7C00U;  // NaN, or past 65504
  uint32_t half = magnitude < 0x38800000U ? small : normal;
  half = magnitude >= 0x477FF000U ? large : half;
  return static_cast<uint16_t>(half | (bits >> 16 & 0x8000U));
}

float bf16_to_f32(uint16_t bits) {
  return to_f32(BFloat16{bits});
}

// memcpy because safetensors promises no alignment.
template <float convert(uint16_t)>
void decode_16_bits(const std::byte* stored, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, stored + i * sizeof(bits), sizeof(bits));
    out[i] = convert(bits);
  }
}

}  // namespace

void decode_to_f32(StoredType type, const std::byte* stored, std::span<float> out) {
  switch (type) {
    case StoredType::kF32:
      std::memcpy(out.data(), stored, out.size_bytes());
      return;
    case StoredType::kF16:
      return decode_16_bits<half_to_f32>(stored, out);
    case StoredType::kBF16:
      return decode_16_bits<bf16_to_f32>(stored, out);
    case StoredType::kQ8_0:
    case StoredType::kQ4_0:
    case StoredType::kQ4_1:
    case StoredType::kQ5_0:
    case StoredType::kQ5_1:
    case StoredType::kQ2_K:
    case StoredType::kQ3_K:
    case StoredType::kQ4_K:
    case StoredType::kQ5_K:
    case StoredType::kQ6_K:
      return dequantize(type, stored, out);
    case StoredType::kMxfp4:
    case StoredType::kOpaque:
      break;
  }
  LAMINA_CHECK(false, "not an encoding with its scales inside");
}

void encode_from_f32(std::span<const float> values, DType dtype, std::byte* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, values.data(), values.size_bytes());
      return;
    case DType::kF16:
      std::ranges::transform(values, reinterpret_cast<uint16_t*>(out), half_from_f32);
      return;
    case DType::kBF16:
      std::ranges::transform(values, reinterpret_cast<BFloat16*>(out), to_bf16);
      return;
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "weights are floating point");
}

}  // namespace lamina
