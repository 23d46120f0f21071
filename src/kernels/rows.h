// Operators that move rows without computing: look-ups, gathers, concatenation. Errors:
// kInvalidArgument on shapes, dtypes or indices that do not fit; nothing is written then.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_view.h"

namespace lamina::kernels {

// out[t] = table[ids[t]].  table [V, E], ids [T] i32 in [0, V), out [T, E] of the table's dtype, or
// of any float dtype where it is packed.
[[nodiscard]] Status embedding(const WeightView& table,
                               TensorView ids,
                               TensorView out,
                               StreamView stream);
// The same with a table that holds rows [first_id, first_id + V) of a larger one: the other ids
// give rows of zeros. Ids are not negative.
[[nodiscard]] Status embedding_shard(
    TensorView table, int64_t first_id, TensorView ids, TensorView out, StreamView stream);

// out[s] = x[rows[s]].  rows [S] i32 in [0, T).
[[nodiscard]] Status gather_rows(TensorView x, TensorView rows, TensorView out, StreamView stream);

// out[t, h] = a[t, h], b[t, h] one after the other.  a [T, H, A], b [T, H, B], out [T, H, A + B].
[[nodiscard]] Status concat(TensorView a, TensorView b, TensorView out, StreamView stream);

}  // namespace lamina::kernels
