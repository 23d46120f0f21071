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
  // How often the slot was cleared: between two calls that give the same its blocks were appended
  // to at most.
  [[nodiscard]] uint64_t generation(int32_t slot) const;
  // Blocks in all tables, those that other workers hold left out.
  [[nodiscard]] int32_t num_held() const { return num_held_; }
  [[nodiscard]] int32_t num_slots() const { return static_cast<int32_t>(tables_.size()); }
  [[nodiscard]] int32_t max_blocks() const { return max_blocks_; }

 private:
  struct Table {
    std::vector<BlockId> blocks;
    uint64_t generation = 0;
  };

  void disown(std::span<const BlockId> blocks);
  [[nodiscard]] const Table& table(int32_t slot) const;

  int32_t max_blocks_;
  int32_t num_held_ = 0;
  std::vector<Table> tables_;
  std::vector<int32_t> owner_;  // slot that holds each block, or -1
};

}  // namespace lamina
