// Operators on quantised weights: the product in int8, and rows of an embedding table.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "tensor/quantized_matrix.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

// out = x weight^T + bias.
//   x [T, K] f32, f16 or bf16; weight [N, K]; bias [N] of x's dtype or an empty view; out [T, N] of
//   x's dtype or f32
// x is rounded to int8 in blocks of 32 columns with an f32 scale, largest magnitude / 127: the
// error of an element of out is that of x, at most 1/254 of the largest of its block. Products of a
// block are exact, blocks are summed in f32 in ascending order: batch-invariant as linear() is.
// Errors: kInvalidArgument on shapes or dtypes that do not fit.
struct QuantizedLinearArgs {
  TensorView x;
  QuantizedMatrix weight;
  TensorView bias;
  TensorView out;
};
[[nodiscard]] Status quantized_linear(const QuantizedLinearArgs& args, StreamView stream);

// Whether this machine has the instructions that make quantized_linear() worth while; without them
// it is the reference, slow.
[[nodiscard]] bool has_fast_quantized_linear();

// out[i] = row ids[i] of `table`.  ids [T] i32, each a row of it; out [T, K] of a float dtype.
[[nodiscard]] Status quantized_embedding(const QuantizedMatrix& table,
                                         TensorView ids,
                                         TensorView out,
                                         StreamView stream);

}  // namespace lamina::kernels
