// append_kv() on the CPU: arguments are those that passed its checks.
#pragma once

#include "device/thread_pool.h"
#include "kernels/attention.h"

namespace lamina::kernels::cpu {

void append_kv(const AppendKvArgs& args, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
