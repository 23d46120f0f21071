// linear() on the CPU: arguments are those that passed its checks.
#pragma once

#include "device/thread_pool.h"
#include "kernels/linear.h"

namespace lamina::kernels::cpu {

void linear(const LinearArgs& args, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
