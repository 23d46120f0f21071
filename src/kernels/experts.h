// Mixture of experts: which experts a token goes to, and their gated MLPs over the tokens that
// come. Batch-invariant as linear() is: a token's output depends on its own row alone, bit for bit.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "tensor/op_attrs.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_view.h"

namespace lamina::kernels {

// Routing weights as RouteAttrs says.  logits, out [T, X] f32; bias [X], any float dtype, or an
// empty view. out is 0 for experts that were not chosen. Errors: kInvalidArgument on shapes, dtypes
// or attributes that do not fit.
[[nodiscard]] Status route(
    TensorView logits, TensorView bias, const RouteAttrs& attrs, TensorView out, StreamView stream);

// out[t] = sum over experts x, ascending, with routes[t, x] != 0, of
//   routes[t, x] * (down[x] gated(gate_up[x] x[t] + gate_up_bias[x]) + down_bias[x])
//   x [T, K], routes [T, X] f32, gate_up [X, 2 I, K] (gates first), down [X, E, I], out [T, E]
//   gate_up_bias [X, 2 I] and down_bias [X, E], or empty views
// One dtype but for routes; sums are f32, and so is what lies between the products of f32 operands
// (of other dtypes the inner activations are rounded to the dtype, as linear() would). gate_up and
// down may be packed: then their products are as linear() says.
// Errors: kInvalidArgument on shapes or dtypes that do not fit.
struct ExpertsArgs {
  TensorView x;
  TensorView routes;
  WeightView gate_up;
  WeightView down;
  TensorView gate_up_bias;
  TensorView down_bias;
  TensorView out;
  GatedActivationAttrs attrs;
};
[[nodiscard]] Status experts(const ExpertsArgs& args, StreamView stream);

}  // namespace lamina::kernels
