// What tensor-parallel ranks do with each other's parts once they have them (transport/collective):
// sum partial values, or lay shared columns side by side.
#pragma once

#include <span>

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

// out = parts[0] + parts[1] + ..., in this order whatever rank computes it, in f32, rounded once.
//   parts and out [T, ...], one shape and float dtype. Errors: kInvalidArgument.
[[nodiscard]] Status sum_parts(std::span<const TensorView> parts,
                               TensorView out,
                               StreamView stream);

// out[:, r N : (r + 1) N] = parts[r].  parts [T, N], out [T, ranks N], one dtype. Errors:
// kInvalidArgument.
[[nodiscard]] Status join_columns(std::span<const TensorView> parts,
                                  TensorView out,
                                  StreamView stream);

}  // namespace lamina::kernels
