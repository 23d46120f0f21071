// Element-wise operators: sums, products, activations. Values are f32 inside; dtypes f32, f16, bf16
// outside, one dtype for all operands of a call. `out` may be the same memory as the first input
// where shapes are equal. Errors: kInvalidArgument on shapes or dtypes that do not fit; nothing is
// written then.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "tensor/op_attrs.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

// All shapes equal.
[[nodiscard]] Status add(TensorView a, TensorView b, TensorView out, StreamView stream);
// Also a [T, N], b [T, 1]: one factor for each row.
[[nodiscard]] Status mul(TensorView a, TensorView b, TensorView out, StreamView stream);
// x * factor.
[[nodiscard]] Status scale(TensorView x, float factor, TensorView out, StreamView stream);
// cap * tanh(x / cap).
[[nodiscard]] Status soft_cap(TensorView x, float cap, TensorView out, StreamView stream);
[[nodiscard]] Status activation(TensorView x, Activation kind, TensorView out, StreamView stream);
// x [T, 2, N], the gates first -> out [T, N], as GatedActivationAttrs says. Of f32 operands and
// without a limit the same bits as activation(), then mul(); other dtypes round once, not twice.
[[nodiscard]] Status gated_activation(TensorView x,
                                      const GatedActivationAttrs& attrs,
                                      TensorView out,
                                      StreamView stream);

}  // namespace lamina::kernels
