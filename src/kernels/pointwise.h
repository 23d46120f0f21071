// The small operators between products: look-ups, norms, activations, rotary embedding. All are
// row-wise: a row of the output depends on the same row of the inputs alone. Values are f32 inside;
// dtypes f32, f16, bf16 outside, one dtype for all float operands of a call unless noted. `out` may
// be the same memory as the first input where shapes are equal. Errors: kInvalidArgument on shapes
// or dtypes that do not fit; nothing is written then.
#pragma once

#include <span>

#include "base/status.h"
#include "device/stream.h"
#include "tensor/op_attrs.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

// out[t] = table[ids[t]].  table [V, E], ids [T] i32, out [T, E]. An id outside [0, V) is
// kInvalidArgument.
[[nodiscard]] Status embedding(TensorView table, TensorView ids, TensorView out, StreamView stream);
// The same with a table that holds rows [first_id, first_id + V) of a larger one: the other ids
// give rows of zeros. Ids are not negative.
[[nodiscard]] Status embedding_shard(
    TensorView table, int64_t first_id, TensorView ids, TensorView out, StreamView stream);

// Normalises the last axis, then * (weight + weight_offset) + bias.  x, out [T, ..., D]; weight
// [D], or [H, D] for x [T, H, D]; bias of weight's shape or an empty view.
struct NormArgs {
  TensorView x;
  TensorView weight;
  TensorView bias;
  TensorView out;
  NormAttrs attrs;
};
[[nodiscard]] Status norm(const NormArgs& args, StreamView stream);

// out[:, 0] = a + b, rounded to the dtype; out[:, 1] = its norm, the same bits as norm() of it.
//   a, b [T, D], out [T, 2, D]
struct AddNormArgs {
  TensorView a;
  TensorView b;
  TensorView weight;
  TensorView bias;
  TensorView out;
  NormAttrs attrs;
};
[[nodiscard]] Status add_norm(const AddNormArgs& args, StreamView stream);

// Element by element; all shapes equal.
[[nodiscard]] Status add(TensorView a, TensorView b, TensorView out, StreamView stream);
// Also a [T, N], b [T, 1]: one factor for each row.
[[nodiscard]] Status mul(TensorView a, TensorView b, TensorView out, StreamView stream);
// x * factor.
[[nodiscard]] Status scale(TensorView x, float factor, TensorView out, StreamView stream);
// cap * tanh(x / cap).
[[nodiscard]] Status soft_cap(TensorView x, float cap, TensorView out, StreamView stream);
[[nodiscard]] Status activation(TensorView x, Activation kind, TensorView out, StreamView stream);
// x [T, 2, N], the gates first -> out [T, N], as GatedActivationAttrs says. Without a limit the
// same bits as activation(), then mul(), of f32 operands; other dtypes round once instead of twice.
[[nodiscard]] Status gated_activation(TensorView x,
                                      const GatedActivationAttrs& attrs,
                                      TensorView out,
                                      StreamView stream);

// out[t, i] = cos(positions[t] * inv_freq[i]) * magnitude, out[t, R/2 + i] the sine.  positions [T]
// i32, out [T, R] f32.
[[nodiscard]] Status rope_table(TensorView positions,
                                std::span<const float> inv_freq,
                                float magnitude,
                                TensorView out,
                                StreamView stream);

// Rotates pairs of the first R elements of each head by the table's angles; the rest passes
// through. Pair i is (i, i + R/2), or (2i, 2i + 1) where `interleaved`. x, out [T, H, D]; table
// [T, R] f32, R <= D.
[[nodiscard]] Status rope(
    TensorView x, TensorView table, bool interleaved, TensorView out, StreamView stream);

// out[t, h] = a[t, h], b[t, h] one after the other.  a [T, H, A], b [T, H, B], out [T, H, A + B].
[[nodiscard]] Status concat(TensorView a, TensorView b, TensorView out, StreamView stream);

// out[s] = x[rows[s]].  rows [S] i32 in [0, T), kInvalidArgument otherwise.
[[nodiscard]] Status gather_rows(TensorView x, TensorView rows, TensorView out, StreamView stream);

}  // namespace lamina::kernels
