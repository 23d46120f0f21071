// Linear: out = x weight^T + bias, the operator that holds nearly all weights of a model.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_view.h"

namespace lamina::kernels {

//   x [T, K], out [T, N] or f32 [T, N]; weight [N, K], contiguous or packed; bias [N] of x's dtype
//   or an empty view. x and a weight that is not packed have one dtype, out has x's or f32; with
//   weights of kPairs x is bf16. f32 accumulation.
// With quantised weights x is rounded to int8 in blocks of 32 columns with an f32 scale, largest
// magnitude / 127: the error of an element of out is that of x, at most 1/254 of the largest of its
// block. Products of a block are exact, blocks are summed in f32 in ascending order.
// Batch-invariant: a row of `out` depends on its row of `x` alone, bit for bit, whatever T is and
// however many threads run: this is what makes offloaded, colocated, alone and batched tokens equal
// (docs/adr/0009). Errors: kInvalidArgument on shapes or dtypes that do not fit.
struct LinearArgs {
  TensorView x;
  WeightView weight;
  TensorView bias;
  TensorView out;
};
[[nodiscard]] Status linear(const LinearArgs& args, StreamView stream);

// out[t, h] = weight[h] x[t, h]: every head by its own matrix.  x [T, H, K], weight [H, N, K],
// out [T, H, N]; all else as linear() says.
[[nodiscard]] Status head_linear(TensorView x,
                                 const WeightView& weight,
                                 TensorView out,
                                 StreamView stream);

// Whether this machine has instructions that make weights of that format worth while: without them
// products are the reference's, slow.
[[nodiscard]] bool has_fast_products(PackedFormat format);

}  // namespace lamina::kernels
