#include "kv/block_table.h"

#include <gtest/gtest.h>

#include <map>

#include "base/rng.h"

namespace lamina {
namespace {

using Ids = std::vector<BlockId>;

Ids ids_of(const BlockTables& tables, int32_t slot) {
  return {tables.blocks(slot).begin(), tables.blocks(slot).end()};
}

TEST(BlockTables, AppendsAndClears) {
  BlockTables tables(2, 3, 10);
  EXPECT_TRUE(tables.append(0, Ids{4, 2}).ok());
  EXPECT_TRUE(tables.append(0, Ids{7}).ok());
  EXPECT_TRUE(tables.append(1, Ids{}).ok());
  EXPECT_EQ(ids_of(tables, 0), (Ids{4, 2, 7}));
  EXPECT_TRUE(tables.clear(0).ok());
  EXPECT_TRUE(tables.blocks(0).empty());
  EXPECT_TRUE(tables.append(1, Ids{2, 4}).ok());
}

TEST(BlockTables, RefusesAndChangesNothing) {
  BlockTables tables(2, 3, 10);
  ASSERT_TRUE(tables.append(0, Ids{1}).ok());
  const auto expect_refused = [&](int32_t slot, const Ids& ids) {
    EXPECT_EQ(tables.append(slot, ids).code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(ids_of(tables, 0), Ids{1});
    EXPECT_TRUE(tables.blocks(1).empty());
  };
  expect_refused(-1, {2});
  expect_refused(2, {2});
  expect_refused(0, {2, -2});
  expect_refused(0, {2, 10});
  expect_refused(1, {2, 1});     // another slot's
  expect_refused(0, {2, 1});     // its own
  expect_refused(1, {2, 2});     // twice in one call
  expect_refused(0, {2, 3, 4});  // past max_blocks
  EXPECT_EQ(tables.clear(2).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tables.clear(-1).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(tables.append(1, Ids{2, 3, 4}).ok());  // nothing stayed taken
}

TEST(BlockTables, CountWhatTheyHoldAndHowOftenTheyWereCleared) {
  BlockTables tables(2, 4, 10);
  ASSERT_TRUE(tables.append(0, Ids{4, kNoBlock, 2}).ok());
  ASSERT_TRUE(tables.append(1, Ids{7}).ok());
  EXPECT_FALSE(tables.append(1, Ids{8, 7}).ok());
  EXPECT_EQ(tables.num_held(), 3);
  const uint64_t before = tables.generation(0);
  ASSERT_TRUE(tables.append(0, Ids{3}).ok());
  EXPECT_EQ(tables.generation(0), before);
  ASSERT_TRUE(tables.clear(0).ok());
  EXPECT_NE(tables.generation(0), before);
  EXPECT_EQ(tables.num_held(), 1);
}

// Blocks that another worker holds keep their place, and nobody owns them here.
TEST(BlockTables, HoldPlacesForBlocksElsewhere) {
  BlockTables tables(2, 4, 4);
  EXPECT_TRUE(tables.append(0, Ids{kNoBlock, 1, kNoBlock}).ok());
  EXPECT_TRUE(tables.append(1, Ids{kNoBlock, 2}).ok());
  EXPECT_EQ(ids_of(tables, 0), (Ids{kNoBlock, 1, kNoBlock}));
  EXPECT_EQ(tables.append(1, Ids{kNoBlock, 1}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tables.append(0, Ids{kNoBlock, 3}).code(), StatusCode::kInvalidArgument);  // too long
  EXPECT_TRUE(tables.clear(0).ok());
  EXPECT_TRUE(tables.append(1, Ids{1, 3}).ok());
}

// Any stream of messages, good or bad, leaves what a map of lists would.
TEST(BlockTables, BehavesAsAMapOfLists) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    BlockTables tables(4, 5, 12);
    std::map<int32_t, Ids> model = {{0, {}}, {1, {}}, {2, {}}, {3, {}}};
    for (int step = 0; step < 1000; ++step) {
      const auto slot = static_cast<int32_t>(rng.next_below(5)) - (rng.next_below(20) == 0 ? 1 : 0);
      const bool has_slot = model.contains(slot);
      if (rng.next_below(4) == 0) {
        ASSERT_EQ(tables.clear(slot).ok(), has_slot) << "seed " << seed;
        if (has_slot) model[slot].clear();
      } else {
        Ids ids(rng.next_below(4));
        for (BlockId& id : ids) id = static_cast<BlockId>(rng.next_below(13));
        bool is_good = has_slot && model[slot].size() + ids.size() <= 5;
        std::vector<int> uses(13, 0);
        for (const auto& [_, held] : model) {
          for (const BlockId id : held) ++uses[static_cast<size_t>(id)];
        }
        for (const BlockId id : ids) is_good &= id < 12 && ++uses[static_cast<size_t>(id)] == 1;
        ASSERT_EQ(tables.append(slot, ids).ok(), is_good) << "seed " << seed << " step " << step;
        if (is_good) model[slot].insert(model[slot].end(), ids.begin(), ids.end());
      }
      for (const auto& [held_by, held] : model) {
        ASSERT_EQ(ids_of(tables, held_by), held) << "seed " << seed << " step " << step;
      }
    }
  }
}

}  // namespace
}  // namespace lamina
