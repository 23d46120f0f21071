// Packing: between tensors whose rows are strided (some heads of all) and the contiguous bytes of a
// message, or of another device.
#pragma once

#include <cstddef>
#include <span>

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"

namespace lamina {

// Copies the rows of `from` one after another to the front of `to`. CHECKs that they fit.
void pack_rows(const TensorView& from, std::span<std::byte> to);
// The reverse. CHECKs that `from` has exactly the bytes of `to`.
void unpack_rows(std::span<const std::byte> from, const TensorView& to);

// Copies a tensor into another of its shape and dtype, in stream order, whichever side is in host
// memory.
[[nodiscard]] Status copy_tensor(const TensorView& to, const TensorView& from, StreamView stream);

}  // namespace lamina
