// Norms over the last axis. Row-wise; sums are f32; dtypes f32, f16, bf16, one for all operands of
// a call. Errors: kInvalidArgument on shapes or dtypes that do not fit; nothing is written then.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "tensor/op_attrs.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

// Normalises the last axis, then * (weight + weight_offset) + bias.  x, out [T, ..., D]; weight
// [D], or [H, D] for x [T, H, D]; bias of weight's shape or an empty view. out may be x.
struct NormArgs {
  TensorView x;
  TensorView weight;
  TensorView bias;
  TensorView out;
  NormAttrs attrs;
};
[[nodiscard]] Status norm(const NormArgs& args, StreamView stream);

// out[:, 0] = a + b, rounded to the dtype; out[:, 1] = its norm, the same bits as norm() of it.
//   a, b [T, D], out [T, 2, D], apart from both; weight [D], bias [D] or an empty view
struct AddNormArgs {
  TensorView a;
  TensorView b;
  TensorView weight;
  TensorView bias;
  TensorView out;
  NormAttrs attrs;
};
[[nodiscard]] Status add_norm(const AddNormArgs& args, StreamView stream);

}  // namespace lamina::kernels
