// The tokens of a step in which no sequence has more than one: what the second phase of its
// attention goes by. Pure functions of the step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/attention/attention_rest.cuh"

namespace lamina::kernels::cuda {

// Whether it is such a step: query_begin is as RaggedBatch has it.
[[nodiscard]] bool has_single_tokens(std::span<const int32_t> query_begin);

// Of such a step, whose tables hold its contexts. Overwrites `tokens`; allocates only where that is
// too small.
void find_new_tokens(const RaggedBatch& batch, int32_t block_size, std::vector<NewToken>& tokens);

}  // namespace lamina::kernels::cuda
