// ragged_attention() on the CPU: arguments are those that passed its checks.
#pragma once

#include "device/thread_pool.h"
#include "kernels/attention.h"

namespace lamina::kernels::cpu {

void ragged_attention(const RaggedAttentionArgs& args, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
