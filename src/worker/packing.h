// Packing: between tensors whose rows are strided (some heads of all) and the contiguous bytes of a
// message.
#pragma once

#include <cstddef>
#include <span>

#include "tensor/tensor_view.h"

namespace lamina {

// Copies the rows of `from` one after another to the front of `to`. CHECKs that they fit.
void pack_rows(const TensorView& from, std::span<std::byte> to);
// The reverse. CHECKs that `from` has exactly the bytes of `to`.
void unpack_rows(std::span<const std::byte> from, const TensorView& to);

}  // namespace lamina
