// Attention of bf16 queries over a bf16 cache by AMX (uses_amx()).
#pragma once

#include "device/thread_pool.h"
#include "kernels/attention.h"

namespace lamina::kernels::cpu {

// As ragged_attention_bf16() of ragged_attention_bf16.h, the caches that it reads included.
void ragged_attention_amx(const RaggedAttentionArgs& args, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
