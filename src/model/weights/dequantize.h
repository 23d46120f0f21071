// Dequantisation of GGUF's block formats to f32, from their published layouts: each block carries
// its elements as small integers and one or two levels of scales, little-endian and unaligned. Used
// at load only. Oracle of the tests: the Python package `gguf`.
#pragma once

#include <cstddef>
#include <span>

#include "model/weights/stored_tensor.h"

namespace lamina {

// out.size() is a multiple of the block's elements; `type` is one of the quantised ones.
void dequantize(StoredType type, const std::byte* blocks, std::span<float> out);

}  // namespace lamina
