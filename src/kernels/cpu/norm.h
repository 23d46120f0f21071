// The operators of norm.h on the CPU: arguments are those that passed their checks.
#pragma once

#include "device/thread_pool.h"
#include "kernels/norm.h"

namespace lamina::kernels::cpu {

void norm(const NormArgs& args, ThreadPool& pool);
void add_norm(const AddNormArgs& args, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
