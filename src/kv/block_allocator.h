// BlockAllocator: accounting of the KV blocks of one pool of attention workers. Names no device: an
// id stands for the same block on every worker of a head split. Only the engine's scheduler uses
// it. Confined to one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace lamina {

using BlockId = int32_t;

class BlockAllocator {
 public:
  explicit BlockAllocator(int32_t num_blocks);

  [[nodiscard]] int32_t num_blocks() const { return static_cast<int32_t>(is_used_.size()); }
  [[nodiscard]] int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  [[nodiscard]] int32_t num_used() const { return num_blocks() - num_free(); }

  // A free block, or nothing when all are in use.
  std::optional<BlockId> allocate();
  // CHECKs range and double free.
  void free(std::span<const BlockId> blocks);

 private:
  std::vector<BlockId> free_;  // a stack: the block freed last is warm in cache and goes out first
  std::vector<bool> is_used_;
};

}  // namespace lamina
