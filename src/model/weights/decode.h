// Element conversion for loading: any StoredType to f32, f32 to the dtype that the model computes
// in. Pure functions over caller's memory, which need not be aligned on the stored side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/weights/stored_tensor.h"

namespace lamina {

// Decodes out.size() elements, whole blocks of `type`, from `stored`. Not for kMxfp4
// (dequantize.h) and kOpaque.
void decode_to_f32(StoredType type, const std::byte* stored, std::span<float> out);

// Writes `values` as `dtype` (kF32, kF16 or kBF16), round to nearest even. `out` is aligned.
void encode_from_f32(std::span<const float> values, DType dtype, std::byte* out);

}  // namespace lamina
