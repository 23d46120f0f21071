#include "plan/kv_budget.h"

#include <fmt/format.h>

#include <algorithm>

namespace lamina {

Result<int32_t> plan_num_blocks(const KvLayout& layout,
                                std::span<const WorkerKvShare> shares,
                                int32_t min_blocks,
                                int32_t max_blocks) {
  auto num_blocks = static_cast<uint64_t>(max_blocks);
  for (const WorkerKvShare& share : shares) {
    KvLayout part = layout;
    part.num_kv_heads = share.num_kv_heads;
    const uint64_t block_bytes = part.block_bytes();
    const uint64_t fits = share.budget_bytes / block_bytes;
    if (fits < static_cast<uint64_t>(min_blocks)) {
      return resource_exhausted(
          fmt::format("attention worker {} has {} MiB for KV, room for {} blocks of {} tokens, but "
                      "one sequence of --max-model-len "
                      "needs {} ({} MiB): raise --kv-cache-memory-bytes or lower --max-model-len",
                      share.name,
                      share.budget_bytes >> 20,
                      fits,
                      layout.block_size,
                      min_blocks,
                      (block_bytes * static_cast<uint64_t>(min_blocks)) >> 20));
    }
    num_blocks = std::min(num_blocks, fits);
  }
  return static_cast<int32_t>(num_blocks);
}

}  // namespace lamina
