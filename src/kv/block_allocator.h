// BlockAllocator: accounting of the KV blocks of one pool of attention workers. Names no device: an
// id stands for the same block on every worker that holds it. Ids lie in lanes (KvPartition): which
// lane a block is taken from decides which workers hold it, so the allocator fills lanes evenly.
// Only the engine's scheduler uses it. Confined to one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace lamina {

using BlockId = int32_t;
// In a worker's block table: another worker holds the block.
inline constexpr BlockId kNoBlock = -1;

// How ids are laid out and given to sequences.
struct BlockLanes {
  std::vector<int32_t> num_blocks;  // of each lane; ids count through
  // A sequence's blocks come from one lane in runs of this many, 0: all from one lane while it has
  // room. Runs as long as the attention operator's tiles keep its tiles whole.
  int32_t run_length = 0;

  [[nodiscard]] int32_t total() const;
};

class BlockAllocator {
 public:
  explicit BlockAllocator(int32_t num_blocks) : BlockAllocator(BlockLanes{{num_blocks}}) {}
  explicit BlockAllocator(const BlockLanes& lanes);

  [[nodiscard]] int32_t num_blocks() const { return static_cast<int32_t>(is_used_.size()); }
  [[nodiscard]] int32_t num_free() const { return num_free_; }
  [[nodiscard]] int32_t num_used() const { return num_blocks() - num_free(); }

  // The next block of a sequence that has `earlier`, or nothing when all are in use. Any lane
  // serves where the one that is due is full.
  std::optional<BlockId> allocate(std::span<const BlockId> earlier = {});
  // CHECKs range and double free.
  void free(std::span<const BlockId> blocks);

 private:
  struct Lane {
    BlockId end = 0;  // of its ids
    int32_t num_blocks = 0;
    std::vector<BlockId> free;  // a stack: the block freed last is warm in cache and goes out first
  };

  [[nodiscard]] Lane& lane_of(BlockId block);
  [[nodiscard]] Lane& emptiest_lane();

  std::vector<Lane> lanes_;
  int32_t run_length_;
  int32_t num_free_ = 0;
  std::vector<bool> is_used_;
};

}  // namespace lamina
