// BlockTables: which blocks hold the tokens of each sequence slot, as an attention worker sees it:
// changed by the StepPlan's entries, read by the attention operator. Input comes from a socket, so
// every change is validated. Confined to one thread. The scheduler keeps its own lists in Sequence;
// this is the workers' copy.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kv/block_allocator.h"

namespace lamina {

class BlockTables {
 public:
  // Room for `num_slots` sequences of at most `max_blocks` blocks, ids in [0, num_blocks).
  BlockTables(int32_t num_slots, int32_t max_blocks, int32_t num_blocks);

  // Forgets the blocks of `slot`.
  Status clear(int32_t slot);
  // Appends blocks to the table of `slot`; kNoBlock stands for one that another worker holds.
  // kInvalidArgument for a slot or id out of range, a block that another slot (or this one) holds,
  // or a table that would grow past max_blocks; nothing changes then.
  Status append(int32_t slot, std::span<const BlockId> blocks);

  [[nodiscard]] std::span<const BlockId> blocks(int32_t slot) const;
  [[nodiscard]] int32_t num_slots() const { return static_cast<int32_t>(tables_.size()); }
  [[nodiscard]] int32_t max_blocks() const { return max_blocks_; }

 private:
  void disown(std::span<const BlockId> blocks);

  int32_t max_blocks_;
  std::vector<std::vector<BlockId>> tables_;
  std::vector<int32_t> owner_;  // slot that holds each block, or -1
};

}  // namespace lamina
