// Attention of bf16 queries over a bf16 cache where the processor multiplies pairs of bf16
// (uses_bf16_dot()).
#pragma once

#include "device/thread_pool.h"
#include "kernels/attention.h"

namespace lamina::kernels::cpu {

// As ragged_attention() of ragged_attention.h. Softmax weights are rounded to bf16 before they
// meet the values: an output is off by up to 2^-8 of the largest value that it averages.
void ragged_attention_bf16(const RaggedAttentionArgs& args, ThreadPool& pool);

// Whether caches of that shape are to be of KvOrder::kPairs, which this kernel reads as they lie.
[[nodiscard]] bool reads_pairs(const KvShape& shape);

}  // namespace lamina::kernels::cpu
