#include "model/weights/decode.h"

#include <cstring>

#include "model/weights/dequantize.h"

namespace lamina {
namespace {

// memcpy because safetensors promises no alignment.
template <typename T>
void decode_plain(const std::byte* stored, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, stored + i * sizeof(T), sizeof(T));
    out[i] = to_f32(value);
  }
}

template <typename T>
void encode_as(std::span<const float> values, std::byte* out) {
  T* typed = reinterpret_cast<T*>(out);
  for (size_t i = 0; i < values.size(); ++i) typed[i] = from_f32<T>(values[i]);
}

}  // namespace

void decode_to_f32(StoredType type, const std::byte* stored, std::span<float> out) {
  switch (type) {
    case StoredType::kF32:
      std::memcpy(out.data(), stored, out.size_bytes());
      return;
    case StoredType::kF16:
      return decode_plain<Float16>(stored, out);
    case StoredType::kBF16:
      return decode_plain<BFloat16>(stored, out);
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
      return encode_as<Float16>(values, out);
    case DType::kBF16:
      return encode_as<BFloat16>(values, out);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "weights are floating point");
}

}  // namespace lamina
