// The operators of rows.h on the CPU: arguments are those that passed their checks.
#pragma once

#include "device/thread_pool.h"
#include "tensor/packed_matrix.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::cpu {

// embedding().
void unpack_rows(const PackedMatrix& table,
                 const TensorView& ids,
                 const TensorView& out,
                 ThreadPool& pool);
// Also embedding().
void gather_rows(const TensorView& x,
                 const TensorView& rows,
                 const TensorView& out,
                 ThreadPool& pool);
void embedding_shard(const TensorView& table,
                     int64_t first_id,
                     const TensorView& ids,
                     const TensorView& out,
                     ThreadPool& pool);
void concat(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
