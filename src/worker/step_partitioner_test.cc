#include "worker/step_partitioner.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "kv/block_table.h"

namespace lamina {
namespace {

constexpr int32_t kBlockSize = 4;
using Ids = std::vector<int32_t>;
using Rows = std::vector<RowRange>;

// Blocks 0..9 lie in tile 0, 10..19 in tile 1.
StepPartitioner two_tiles() {
  return {{{0, 10}, {10, 20}}, 4, kBlockSize};
}

TEST(StepPartitioner, AWholeTileGetsEverything) {
  StepPartitioner partitioner({{0, 20}}, 4, kBlockSize);
  StepPlan plan;
  plan.sequences = {{.slot = 2, .num_tokens = 6, .new_blocks = {3, 12}, .starts = true}};
  std::vector<TileStep> parts;
  ASSERT_TRUE(partitioner.partition(plan, 1, parts).ok());
  ASSERT_EQ(parts.size(), 1U);
  EXPECT_EQ(parts[0].plan.step, 1U);
  EXPECT_EQ(parts[0].plan.micro_batch, 1U);
  EXPECT_EQ(parts[0].plan.new_blocks, (Ids{3, 12}));
  EXPECT_EQ(parts[0].plan.sequences[0].starts, 1U);
  EXPECT_FALSE(parts[0].is_partial);
  EXPECT_EQ(parts[0].q_rows, (Rows{{0, 6}}));
  EXPECT_EQ(parts[0].kv_rows, (Rows{{0, 6}}));
}

TEST(StepPartitioner, RefusesTokensWithoutBlocks) {
  StepPartitioner partitioner = two_tiles();
  StepPlan plan;
  plan.sequences = {{.slot = 0, .num_tokens = 5, .new_blocks = {1}, .starts = true}};
  std::vector<TileStep> parts;
  EXPECT_EQ(partitioner.partition(plan, 0, parts).code(), StatusCode::kInvalidArgument);
}

TEST(StepPartitioner, AllAreToldOfASequenceThatOneHolds) {
  StepPartitioner partitioner({{0, 10}, {10, 20}}, 4, kBlockSize, StepPartitioner::Audience::kAll);
  StepPlan plan;
  plan.sequences = {{.slot = 3, .num_tokens = 5, .new_blocks = {1, 2}, .starts = true}};
  std::vector<TileStep> parts;
  ASSERT_TRUE(partitioner.partition(plan, 0, parts).ok());
  EXPECT_EQ(parts[0].plan.new_blocks, (Ids{1, 2}));
  ASSERT_EQ(parts[1].plan.sequences.size(), 1U);
  EXPECT_EQ(parts[1].plan.sequences[0].starts, 1U);
  EXPECT_EQ(parts[1].plan.new_blocks, (Ids{kNoBlock, kNoBlock}));

  plan = {};
  plan.released_slots = {3};
  plan.sequences = {{.slot = 0, .num_tokens = 1, .new_blocks = {11}, .starts = true}};
  ASSERT_TRUE(partitioner.partition(plan, 0, parts).ok());
  for (const TileStep& part : parts) {
    EXPECT_EQ(part.plan.released_slots, (std::vector<uint32_t>{3}));
    EXPECT_EQ(part.plan.step, 2U);
  }
}

TEST(StepPartitioner, ASplitSequenceGoesToBoth) {
  StepPartitioner partitioner = two_tiles();
  StepPlan plan;
  plan.sequences = {{.slot = 0, .num_tokens = 3, .new_blocks = {1}, .starts = true},
                    {.slot = 1, .num_tokens = 11, .new_blocks = {2, 12, 3}, .starts = true}};
  std::vector<TileStep> parts;
  ASSERT_TRUE(partitioner.partition(plan, 0, parts).ok());
  EXPECT_EQ(parts[0].plan.new_blocks, (Ids{1, 2, kNoBlock, 3}));
  EXPECT_EQ(parts[0].q_rows, (Rows{{0, 14}}));
  EXPECT_EQ(parts[0].kv_rows, (Rows{{0, 7}, {11, 3}}));
  EXPECT_EQ(parts[0].num_kv_rows, 10);
  EXPECT_TRUE(parts[0].is_partial);
  ASSERT_EQ(parts[1].plan.sequences.size(), 1U);
  EXPECT_EQ(parts[1].plan.sequences[0].slot, 1U);
  EXPECT_EQ(parts[1].plan.new_blocks, (Ids{kNoBlock, 2, kNoBlock}));
  EXPECT_EQ(parts[1].q_rows, (Rows{{3, 11}}));
  EXPECT_EQ(parts[1].kv_rows, (Rows{{7, 4}}));
  EXPECT_TRUE(parts[1].is_partial);
}

// Blocks that are set aside but hold no token yet do not concern their holder; once one does, it
// hears of the whole table. Steps are counted by those who take part.
TEST(StepPartitioner, AHolderHearsOfASequenceWhenItIsNeeded) {
  StepPartitioner partitioner = two_tiles();
  std::vector<TileStep> parts;
  StepPlan plan;
  plan.sequences = {{.slot = 0, .num_tokens = 3, .new_blocks = {1, 11}, .starts = true}};
  ASSERT_TRUE(partitioner.partition(plan, 0, parts).ok());
  EXPECT_FALSE(parts[0].is_partial);
  EXPECT_FALSE(parts[1].takes_part());
  plan.sequences = {{.slot = 0, .first_position = 3, .num_tokens = 2}};
  ASSERT_TRUE(partitioner.partition(plan, 0, parts).ok());
  EXPECT_EQ(parts[0].plan.step, 2U);
  EXPECT_TRUE(parts[0].plan.new_blocks.empty());
  EXPECT_TRUE(parts[0].is_partial);
  EXPECT_EQ(parts[1].plan.step, 1U);
  EXPECT_EQ(parts[1].plan.new_blocks, (Ids{kNoBlock, 1}));
  EXPECT_EQ(parts[1].plan.sequences[0].starts, 1U);
  EXPECT_EQ(parts[1].kv_rows, (Rows{{1, 1}}));
}

// A holder is told of released slots with its next plan, whichever micro-batch that is for.
TEST(StepPartitioner, ReleasesWaitForTheHoldersNextPlan) {
  StepPartitioner partitioner = two_tiles();
  std::vector<TileStep> parts;
  StepPlan plan;
  plan.sequences = {{.slot = 0, .num_tokens = 1, .new_blocks = {11}, .starts = true}};
  ASSERT_TRUE(partitioner.partition(plan, 0, parts).ok());
  plan.released_slots = {0};
  plan.sequences = {{.slot = 1, .num_tokens = 1, .new_blocks = {1}, .starts = true}};
  ASSERT_TRUE(partitioner.partition(plan, 0, parts).ok());
  EXPECT_TRUE(parts[0].plan.released_slots.empty());
  EXPECT_FALSE(parts[1].takes_part());
  plan.released_slots = {};
  plan.sequences = {{.slot = 0, .num_tokens = 1, .new_blocks = {11}, .starts = true}};
  ASSERT_TRUE(partitioner.partition(plan, 1, parts).ok());
  EXPECT_EQ(parts[1].plan.released_slots, (std::vector<uint32_t>{0}));
}

// Any history: the holders' tables, as their plans make them, together are the sequence's table.
TEST(StepPartitioner, TablesOfTheHoldersMakeTheWhole) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Rng rng(seed);
    const std::vector<BlockRange> tiles = {{0, 13}, {13, 20}, {20, 40}};
    StepPartitioner partitioner(tiles, 4, kBlockSize);
    std::vector<BlockTables> held;
    for (const BlockRange& tile : tiles) held.emplace_back(4, 10, tile.count());
    std::vector<Ids> tables(4);
    std::vector<int32_t> lengths(4, 0);
    Ids free;
    for (int32_t id = 0; id < 40; ++id) free.push_back(id);
    for (int step = 0; step < 200; ++step) {
      StepPlan plan;
      for (int32_t slot = 0; slot < 4; ++slot) {
        const auto i = static_cast<size_t>(slot);
        if (lengths[i] > 0 && rng.next_below(8) == 0) {
          plan.released_slots.push_back(slot);
          free.insert(free.end(), tables[i].begin(), tables[i].end());
          tables[i].clear();
          lengths[i] = 0;
        }
      }
      for (int32_t slot = 0; slot < 4; ++slot) {
        const auto i = static_cast<size_t>(slot);
        const auto count = static_cast<int32_t>(rng.next_below(6));
        if (count == 0 || lengths[i] + count > 40) continue;
        SequenceStep sequence{.slot = slot, .first_position = lengths[i], .num_tokens = count};
        sequence.starts = lengths[i] == 0;
        lengths[i] += count;
        while (static_cast<int32_t>(tables[i].size()) * kBlockSize < lengths[i]) {
          const size_t pick = rng.next_below(free.size());
          tables[i].push_back(free[pick]);
          sequence.new_blocks.push_back(free[pick]);
          free.erase(free.begin() + static_cast<ptrdiff_t>(pick));
        }
        plan.sequences.push_back(sequence);
      }
      std::vector<TileStep> parts;
      ASSERT_TRUE(partitioner.partition(plan, 0, parts).ok());
      int64_t num_kv_rows = 0;
      for (size_t t = 0; t < tiles.size(); ++t) {
        num_kv_rows += parts[t].num_kv_rows;
        for (const uint32_t slot : parts[t].plan.released_slots) {
          ASSERT_TRUE(held[t].clear(static_cast<int32_t>(slot)).ok());
        }
        std::span<const BlockId> blocks = parts[t].plan.new_blocks;
        for (const wire::SequenceEntry& entry : parts[t].plan.sequences) {
          const auto slot = static_cast<int32_t>(entry.slot);
          if (entry.starts == 0) continue;
          ASSERT_TRUE(held[t].clear(slot).ok());
        }
        for (const wire::SequenceEntry& entry : parts[t].plan.sequences) {
          const auto slot = static_cast<int32_t>(entry.slot);
          ASSERT_TRUE(held[t].append(slot, blocks.first(entry.num_new_blocks)).ok()) << seed;
          blocks = blocks.subspan(entry.num_new_blocks);
          const auto table = held[t].blocks(slot);
          const Ids& whole = tables[entry.slot];
          ASSERT_EQ(table.size(), whole.size()) << seed;
          for (size_t b = 0; b < whole.size(); ++b) {
            const BlockId expected =
                tiles[t].contains(whole[b]) ? whole[b] - tiles[t].begin : kNoBlock;
            ASSERT_EQ(table[b], expected) << seed;
          }
        }
      }
      ASSERT_EQ(num_kv_rows, plan.num_tokens()) << seed;
    }
  }
}

}  // namespace
}  // namespace lamina
