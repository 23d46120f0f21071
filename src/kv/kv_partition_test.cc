#include "kv/kv_partition.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

using Lanes = std::vector<BlockRange>;

// 2 heads and 100 blocks: worker 1 has half of head 0 and a quarter of head 1.
KvPartition staggered() {
  return {.num_kv_heads = 2,
          .num_blocks = 100,
          .tiles = {{.worker_idx = 0, .kv_heads = {0, 1}, .blocks = {0, 50}},
                    {.worker_idx = 1, .kv_heads = {0, 1}, .blocks = {50, 100}},
                    {.worker_idx = 1, .kv_heads = {1, 2}, .blocks = {0, 25}},
                    {.worker_idx = 2, .kv_heads = {1, 2}, .blocks = {25, 100}}}};
}

TEST(KvPartition, CutsLanesWhereverATileEnds) {
  EXPECT_EQ(staggered().lanes(), (Lanes{{0, 25}, {25, 50}, {50, 100}}));
  const KvPartition heads{.num_kv_heads = 2,
                          .num_blocks = 7,
                          .tiles = {{.kv_heads = {0, 1}, .blocks = {0, 7}},
                                    {.worker_idx = 1, .kv_heads = {1, 2}, .blocks = {0, 7}}}};
  EXPECT_EQ(heads.lanes(), (Lanes{{0, 7}}));
}

TEST(KvPartition, KnowsItsShares) {
  EXPECT_DOUBLE_EQ(staggered().share_of(0), 0.25);
  EXPECT_DOUBLE_EQ(staggered().share_of(1), 0.375);
  EXPECT_DOUBLE_EQ(staggered().share_of(2), 0.375);
  EXPECT_DOUBLE_EQ(staggered().share_of(3), 0.0);
}

TEST(KvPartition, VerifiesThatTilesCoverEverythingOnce) {
  EXPECT_TRUE(staggered().verify().ok());
  KvPartition hole = staggered();
  hole.tiles[3].blocks.begin = 26;
  EXPECT_EQ(hole.verify().code(), StatusCode::kInternal);
  KvPartition overlap = staggered();
  overlap.tiles[0].blocks.end = 51;
  EXPECT_EQ(overlap.verify().code(), StatusCode::kInternal);
  KvPartition headless = staggered();
  headless.num_kv_heads = 3;
  EXPECT_EQ(headless.verify().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace lamina
