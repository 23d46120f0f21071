// KV budget: how many blocks the attention workers can hold together. Arithmetic only.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "kv/kv_layout.h"

namespace lamina {

// One attention worker's part of a head split.
struct WorkerKvShare {
  std::string name;           // for messages
  uint64_t budget_bytes = 0;  // memory it gives to KV
  int32_t num_kv_heads = 0;   // its share
};

// Blocks of the pool: an id stands for the same block on every worker, so the worker with the least
// room decides. `layout` describes the whole model; its num_kv_heads is replaced by each share's.
// At most `max_blocks`. kResourceExhausted, naming the worker, the bytes and the flag to change, if
// fewer than `min_blocks` fit.
Result<int32_t> plan_num_blocks(const KvLayout& layout,
                                std::span<const WorkerKvShare> shares,
                                int32_t min_blocks,
                                int32_t max_blocks);

}  // namespace lamina
