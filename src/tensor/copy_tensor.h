// Copies of tensors within and between devices.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"

namespace lamina {

// Copies a tensor into another of its shape and dtype, in stream order, whichever side is in host
// memory. CHECKs that they are alike.
[[nodiscard]] Status copy_tensor(const TensorView& to, const TensorView& from, StreamView stream);

}  // namespace lamina
