// The operators of pointwise.h on the CPU: arguments are those that passed their checks.
#pragma once

#include <span>

#include "device/thread_pool.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::cpu {

// Also embedding().
void gather_rows(const TensorView& x,
                 const TensorView& rows,
                 const TensorView& out,
                 ThreadPool& pool);
void rms_norm(const TensorView& x,
              const TensorView& weight,
              float eps,
              const TensorView& out,
              ThreadPool& pool);
void rope_table(const TensorView& positions,
                std::span<const float> inv_freq,
                float magnitude,
                const TensorView& out,
                ThreadPool& pool);
void rope(const TensorView& x, const TensorView& table, const TensorView& out, ThreadPool& pool);
void add(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool);
void mul(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool);
void silu(const TensorView& x, const TensorView& out, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
