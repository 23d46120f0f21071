#include "kv/block_allocator.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace lamina {

int32_t BlockLanes::total() const {
  return std::accumulate(num_blocks.begin(), num_blocks.end(), 0);
}

BlockAllocator::BlockAllocator(const BlockLanes& lanes)
    : run_length_(lanes.run_length),
      num_free_(lanes.total()),
      is_used_(static_cast<size_t>(lanes.total()), false) {
  LAMINA_CHECK(!lanes.num_blocks.empty());
  const int32_t least = lanes.num_blocks.size() == 1 ? 0 : 1;
  BlockId end = 0;
  for (const int32_t num_blocks : lanes.num_blocks) {
    LAMINA_CHECK_GE(num_blocks, least);
    end += num_blocks;
    Lane& lane = lanes_.emplace_back();
    lane.end = end;
    lane.num_blocks = num_blocks;
    lane.free.resize(static_cast<size_t>(num_blocks));
    // Lowest ids on top, so that a small load stays in a small part of the cache.
    std::iota(lane.free.rbegin(), lane.free.rend(), end - num_blocks);
  }
}

std::optional<BlockId> BlockAllocator::allocate(std::span<const BlockId> earlier) {
  if (num_free_ == 0) return std::nullopt;
  const auto length = static_cast<int32_t>(earlier.size());
  const bool is_within_run = length > 0 && (run_length_ == 0 || length % run_length_ != 0);
  Lane* lane = is_within_run ? &lane_of(earlier.back()) : nullptr;
  if (lane == nullptr || lane->free.empty()) lane = &emptiest_lane();
  const BlockId block = lane->free.back();
  lane->free.pop_back();
  --num_free_;
  is_used_[static_cast<size_t>(block)] = true;
  return block;
}

void BlockAllocator::free(std::span<const BlockId> blocks) {
  for (const BlockId block : blocks) {
    LAMINA_CHECK_GE(block, 0);
    LAMINA_CHECK_LT(block, num_blocks());
    LAMINA_CHECK(is_used_[static_cast<size_t>(block)], "block freed twice");
    is_used_[static_cast<size_t>(block)] = false;
    lane_of(block).free.push_back(block);
    ++num_free_;
  }
}

BlockAllocator::Lane& BlockAllocator::lane_of(BlockId block) {
  return *std::upper_bound(lanes_.begin(), lanes_.end(), block, [](BlockId id, const Lane& lane) {
    return id < lane.end;
  });
}

// The lane with the largest free share of its blocks, the first of equals.
BlockAllocator::Lane& BlockAllocator::emptiest_lane() {
  return *std::max_element(lanes_.begin(), lanes_.end(), [](const Lane& a, const Lane& b) {
    return int64_t{b.num_blocks} * static_cast<int64_t>(a.free.size()) <
           int64_t{a.num_blocks} * static_cast<int64_t>(b.free.size());
  });
}

}  // namespace lamina
