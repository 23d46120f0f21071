#include "kv/block_allocator.h"

#include "base/check.h"

namespace lamina {

BlockAllocator::BlockAllocator(int32_t num_blocks) {
  LAMINA_CHECK_GE(num_blocks, 0);
  is_used_.resize(static_cast<size_t>(num_blocks), false);
  free_.reserve(is_used_.size());
  // Lowest ids on top, so that a small load stays in a small part of the cache.
  for (BlockId id = num_blocks - 1; id >= 0; --id) free_.push_back(id);
}

std::optional<BlockId> BlockAllocator::allocate() {
  if (free_.empty()) return std::nullopt;
  const BlockId id = free_.back();
  free_.pop_back();
  is_used_[static_cast<size_t>(id)] = true;
  return id;
}

void BlockAllocator::free(std::span<const BlockId> blocks) {
  for (const BlockId id : blocks) {
    LAMINA_CHECK_GE(id, 0);
    LAMINA_CHECK_LT(id, num_blocks());
    LAMINA_CHECK(is_used_[static_cast<size_t>(id)], "block freed twice");
    is_used_[static_cast<size_t>(id)] = false;
    free_.push_back(id);
  }
}

}  // namespace lamina
