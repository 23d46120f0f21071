// The operators of parts.h on the CPU: arguments are those that passed their checks.
#pragma once

#include <span>

#include "device/thread_pool.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::cpu {

void sum_parts(std::span<const TensorView> parts, const TensorView& out, ThreadPool& pool);
void join_columns(std::span<const TensorView> parts, const TensorView& out, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
