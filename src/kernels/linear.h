// Linear: out = x weight^T + bias, the operator that holds nearly all weights of a model.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

//   x [T, K], out [T, N] or f32 [T, N]; weight [N, K], contiguous; bias [N] or an empty view. x and
//   weight have one dtype, out has x's or f32. f32 accumulation.
// Batch-invariant: a row of `out` depends on its row of `x` alone, bit for bit, whatever T is and
// however many threads run: this is what makes offloaded, colocated, alone and batched tokens equal
// (docs/adr/0009). Errors: kInvalidArgument on shapes or dtypes that do not fit.
struct LinearArgs {
  TensorView x;
  TensorView weight;
  TensorView bias;
  TensorView out;
};
[[nodiscard]] Status linear(const LinearArgs& args, StreamView stream);

// out[t, h] = weight[h] x[t, h]: every head by its own matrix.  x [T, H, K], weight [H, N, K]
// contiguous, out [T, H, N]; one dtype. f32 accumulation, batch-invariant. Errors: kInvalidArgument
// on shapes or dtypes that do not fit.
[[nodiscard]] Status head_linear(TensorView x,
                                 TensorView weight,
                                 TensorView out,
                                 StreamView stream);

}  // namespace lamina::kernels
