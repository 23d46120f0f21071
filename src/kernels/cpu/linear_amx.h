// Products of bf16 by AMX (uses_amx()).
#pragma once

#include "device/thread_pool.h"
#include "kernels/linear.h"

namespace lamina::kernels::cpu {

// As linear() and linear_part() of linear.h; x and weight are bf16.
void linear_amx(const LinearArgs& args, ThreadPool& pool);
void linear_part_amx(const LinearArgs& args, int64_t begin, int64_t end);

}  // namespace lamina::kernels::cpu
