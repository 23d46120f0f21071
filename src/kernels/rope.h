// Rotary embedding: the table of angles that a step's positions have, and the rotation of heads by
// it. Row-wise. Errors: kInvalidArgument on shapes or dtypes that do not fit; nothing is written
// then. Source: RoFormer (arXiv 2104.09864).
#pragma once

#include <span>

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

// out[t, i] = cos(positions[t] * inv_freq[i]) * magnitude, out[t, R/2 + i] the sine.  positions [T]
// i32, out [T, R] f32.
[[nodiscard]] Status rope_table(TensorView positions,
                                std::span<const float> inv_freq,
                                float magnitude,
                                TensorView out,
                                StreamView stream);

// Rotates pairs of the first R elements of each head by the table's angles; the rest passes
// through. Pair i is (i, i + R/2), or (2i, 2i + 1) where `interleaved`. x, out [T, H, D]; table
// [T, R] f32, R <= D. out may be x.
[[nodiscard]] Status rope(
    TensorView x, TensorView table, bool interleaved, TensorView out, StreamView stream);

}  // namespace lamina::kernels
