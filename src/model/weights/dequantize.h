// Dequantisation of block formats to f32, from their published layouts. Used at load only. GGUF's:
// each block carries its elements as small integers and one or two levels of scales, little-endian
// and unaligned; oracle of the tests: the Python package `gguf`. MXFP4: OCP Microscaling Formats
// specification 1.0.
#pragma once

#include <cstddef>
#include <span>

#include "model/weights/stored_tensor.h"

namespace lamina {

// out.size() is a multiple of the block's elements; `type` is one of GGUF's quantised ones.
void dequantize(StoredType type, const std::byte* blocks, std::span<float> out);

// Blocks of 32 e2m1 elements in 16 bytes, the first of two in the low nibble; one e8m0 scale for
// each block: 2^(s - 127), NaN for 255. out.size() is a multiple of 32.
void dequantize_mxfp4(const std::byte* blocks, const std::byte* scales, std::span<float> out);

}  // namespace lamina
