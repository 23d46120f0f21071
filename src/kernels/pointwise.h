// The small operators between products and attention: norms, rotary embedding, activations,
// gathers. All are row-wise: a row of the output depends on the same row of the inputs alone.
// Values are f32 inside; dtypes f32, f16, bf16 outside, one dtype for all float operands of a call
// unless noted. `out` may be the same memory as the first input. Errors: kInvalidArgument on shapes
// or dtypes that do not fit.
#pragma once

#include <span>

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

// out[t] = table[ids[t]].  table [V, E], ids [T] i32, out [T, E]. An id outside [0, V) is
// kInvalidArgument.
[[nodiscard]] Status embedding(TensorView table, TensorView ids, TensorView out, StreamView stream);

// out = x / sqrt(mean(x^2) + eps) * weight over the last axis.  x, out [T, ..., D]; weight [D].
[[nodiscard]] Status rms_norm(
    TensorView x, TensorView weight, float eps, TensorView out, StreamView stream);

// out[t, i] = cos(positions[t] * inv_freq[i]) * magnitude, out[t, R/2 + i] the sine.  positions [T]
// i32, out [T, R] f32.
[[nodiscard]] Status rope_table(TensorView positions,
                                std::span<const float> inv_freq,
                                float magnitude,
                                TensorView out,
                                StreamView stream);

// Rotates pairs (i, i + R/2) of the first R elements of each head by the table's angles; the rest
// passes through. x, out [T, H, D]; table [T, R] f32, R <= D.
[[nodiscard]] Status rope(TensorView x, TensorView table, TensorView out, StreamView stream);

// Element by element; all shapes equal.
[[nodiscard]] Status add(TensorView a, TensorView b, TensorView out, StreamView stream);
[[nodiscard]] Status mul(TensorView a, TensorView b, TensorView out, StreamView stream);
// x / (1 + exp(-x)).
[[nodiscard]] Status silu(TensorView x, TensorView out, StreamView stream);

// out[s] = x[rows[s]].  rows [S] i32 in [0, T), kInvalidArgument otherwise.
[[nodiscard]] Status gather_rows(TensorView x, TensorView rows, TensorView out, StreamView stream);

}  // namespace lamina::kernels
