// The operators of experts.h on the CPU: arguments are those that passed their checks.
#pragma once

#include "device/thread_pool.h"
#include "kernels/experts.h"

namespace lamina::kernels::cpu {

void route(const TensorView& logits,
           const TensorView& bias,
           const RouteAttrs& attrs,
           const TensorView& out,
           ThreadPool& pool);
void experts(const ExpertsArgs& args, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
