#include "kv/block_allocator.h"

#include <gtest/gtest.h>

#include <set>

#include "base/rng.h"

namespace lamina {
namespace {

TEST(BlockAllocator, HandsOutEveryBlockOnce) {
  BlockAllocator allocator(5);
  std::set<BlockId> ids;
  for (int i = 0; i < 5; ++i) ids.insert(allocator.allocate().value());
  EXPECT_EQ(ids, (std::set<BlockId>{0, 1, 2, 3, 4}));
  EXPECT_EQ(allocator.allocate(), std::nullopt);
  EXPECT_EQ(allocator.num_free(), 0);
  EXPECT_EQ(BlockAllocator(0).allocate(), std::nullopt);
}

TEST(BlockAllocator, TheLastFreedGoesOutFirst) {
  BlockAllocator allocator(4);
  for (int i = 0; i < 4; ++i) allocator.allocate();
  allocator.free(std::vector<BlockId>{2, 0});
  EXPECT_EQ(allocator.allocate(), 0);
  EXPECT_EQ(allocator.allocate(), 2);
}

// Any sequence of operations behaves as a set of free ids.
TEST(BlockAllocator, BehavesAsASet) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    const auto num_blocks = static_cast<int32_t>(rng.next_below(40));
    BlockAllocator allocator(num_blocks);
    std::vector<BlockId> used;
    for (int step = 0; step < 2000; ++step) {
      if (rng.next_below(2) == 0) {
        const auto id = allocator.allocate();
        ASSERT_EQ(id.has_value(), static_cast<int32_t>(used.size()) < num_blocks)
            << "seed " << seed;
        if (!id) continue;
        ASSERT_TRUE(*id >= 0 && *id < num_blocks) << "seed " << seed;
        ASSERT_EQ(std::count(used.begin(), used.end(), *id), 0) << "seed " << seed;
        used.push_back(*id);
      } else {
        const auto count = static_cast<std::ptrdiff_t>(rng.next_below(used.size() + 1));
        allocator.free({used.data(), static_cast<size_t>(count)});
        used.erase(used.begin(), used.begin() + count);
      }
      ASSERT_EQ(allocator.num_used(), static_cast<int32_t>(used.size())) << "seed " << seed;
      ASSERT_EQ(allocator.num_free() + allocator.num_used(), num_blocks) << "seed " << seed;
    }
  }
}

// Lanes fill in proportion to their size; a run stays in its lane.
TEST(BlockAllocator, FillsLanesEvenlyInRuns) {
  BlockAllocator allocator({.num_blocks = {100, 200, 100}, .run_length = 4});
  std::vector<BlockId> blocks;
  for (int i = 0; i < 80; ++i) blocks.push_back(*allocator.allocate(blocks));
  std::vector<int> per_lane(3, 0);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const size_t lane = blocks[i] < 100 ? 0 : blocks[i] < 300 ? 1 : 2;
    ++per_lane[lane];
    if (i % 4 != 0) {
      EXPECT_EQ(blocks[i], blocks[i - 1] + 1);
    }
  }
  EXPECT_EQ(per_lane, (std::vector<int>{20, 40, 20}));
  allocator.free(blocks);
  EXPECT_EQ(allocator.num_free(), 400);
}

TEST(BlockAllocator, KeepsASequenceInItsLaneUntilThatIsFull) {
  BlockAllocator allocator({.num_blocks = {3, 3}, .run_length = 0});
  std::vector<BlockId> first;
  std::vector<BlockId> second;
  first.push_back(*allocator.allocate(first));
  second.push_back(*allocator.allocate(second));
  for (int i = 0; i < 3; ++i) first.push_back(*allocator.allocate(first));
  EXPECT_EQ(first, (std::vector<BlockId>{0, 1, 2, 4}));
  EXPECT_EQ(second, (std::vector<BlockId>{3}));
  EXPECT_TRUE(allocator.allocate(first).has_value());
  EXPECT_FALSE(allocator.allocate(first).has_value());
}

TEST(BlockAllocatorDeathTest, ChecksRangeAndDoubleFree) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  BlockAllocator allocator(2);
  const BlockId id = allocator.allocate().value();
  allocator.free(std::vector<BlockId>{id});
  EXPECT_DEATH(allocator.free(std::vector<BlockId>{id}), "freed twice");
  EXPECT_DEATH(allocator.free(std::vector<BlockId>{2}), "block < num_blocks");
  EXPECT_DEATH(allocator.free(std::vector<BlockId>{-1}), "block >= 0");
}

}  // namespace
}  // namespace lamina
