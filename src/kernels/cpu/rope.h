// The operators of rope.h on the CPU: arguments are those that passed their checks.
#pragma once

#include <span>

#include "device/thread_pool.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::cpu {

void rope_table(const TensorView& positions,
                std::span<const float> inv_freq,
                float magnitude,
                const TensorView& out,
                ThreadPool& pool);
void rope(const TensorView& x,
          const TensorView& table,
          bool interleaved,
          const TensorView& out,
          ThreadPool& pool);

}  // namespace lamina::kernels::cpu
