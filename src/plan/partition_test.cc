#include "plan/partition.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace lamina {
namespace {

// 2 layers x 2 (K, V) x 16 tokens x 8 x 2 bytes = 1024 bytes a block and head.
KvLayout layout(int32_t num_kv_heads) {
  return {.num_layers = 2,
          .num_kv_heads = num_kv_heads,
          .head_dim = 8,
          .value_dim = 8,
          .block_size = 16,
          .dtype = DType::kBF16};
}

std::vector<PartitionWorker> equal_workers(size_t count, uint64_t budget_bytes = 1 << 20) {
  std::vector<PartitionWorker> workers(count);
  for (size_t i = 0; i < count; ++i) workers[i] = {std::to_string(i), budget_bytes, 1.0};
  return workers;
}

PlannedPartition plan(PartitionKind kind,
                      int32_t num_kv_heads,
                      const std::vector<PartitionWorker>& workers) {
  auto planned = plan_partition({.kind = kind,
                                 .layout = layout(num_kv_heads),
                                 .workers = workers,
                                 .min_blocks = 4,
                                 .max_blocks = 1200});
  return std::move(planned).value_or_throw();
}

TEST(Partition, NamesRoundTrip) {
  for (const auto kind : {PartitionKind::kAuto,
                          PartitionKind::kHead,
                          PartitionKind::kRequest,
                          PartitionKind::kSequence,
                          PartitionKind::kHeadSequence}) {
    EXPECT_EQ(parse_partition(partition_name(kind)), kind);
  }
  EXPECT_EQ(parse_partition("heads"), std::nullopt);
}

TEST(Partition, HeadsFollowSpeed) {
  std::vector<PartitionWorker> workers = equal_workers(2);
  workers[0].speed = 3.0;
  const PlannedPartition planned = plan(PartitionKind::kHead, 8, workers);
  ASSERT_EQ(planned.partition.tiles.size(), 2U);
  EXPECT_EQ(planned.partition.tiles[0].kv_heads, (HeadRange{0, 6}));
  EXPECT_EQ(planned.partition.tiles[1].kv_heads, (HeadRange{6, 8}));
  EXPECT_EQ(planned.lanes.num_blocks.size(), 1U);
}

TEST(Partition, TheTightestWorkerDecides) {
  std::vector<PartitionWorker> workers = equal_workers(2);
  workers[0].budget_bytes = 30 * 1024;
  workers[1].budget_bytes = 7 * 1024;
  workers[0].speed = 3.0;
  EXPECT_EQ(plan(PartitionKind::kHead, 4, workers).partition.num_blocks, 7);
  EXPECT_EQ(plan(PartitionKind::kHead, 4, equal_workers(2)).partition.num_blocks, 512);
  EXPECT_EQ(plan(PartitionKind::kSequence, 4, equal_workers(2)).partition.num_blocks, 512);
  EXPECT_EQ(plan(PartitionKind::kSequence, 1, equal_workers(3)).partition.num_blocks, 1200);
}

TEST(Partition, SaysWhichWorkerIsTooSmall) {
  std::vector<PartitionWorker> workers = equal_workers(2);
  workers[1] = {"box:7", 7 * 1024, 1.0};
  const auto planned = plan_partition({.kind = PartitionKind::kHead,
                                       .layout = layout(4),
                                       .workers = workers,
                                       .min_blocks = 4,
                                       .max_blocks = 100});
  EXPECT_EQ(planned.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(planned.status().message().find("box:7"), std::string::npos);
}

TEST(Partition, NoiseInMeasuredSpeedsIsEvenedOut) {
  std::vector<PartitionWorker> workers = equal_workers(5);
  const std::vector<double> measured = {10.0, 11.5, 9.5, 0.0, 30.0};
  for (size_t i = 0; i < measured.size(); ++i) workers[i].speed = measured[i];
  even_out_speeds(workers);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(workers[i].speed, workers[1].speed);
  EXPECT_EQ(workers[4].speed, 30.0);
  std::vector<PartitionWorker> unknown = equal_workers(2);
  unknown[0].speed = unknown[1].speed = 0;
  even_out_speeds(unknown);
  EXPECT_EQ(unknown[0].speed, 1.0);
}

// One KV head keeps any number of workers busy, and 8 heads keep 12.
TEST(Partition, AutoSplitsHeadsOnlyWhereWholeOnesDoNotBalance) {
  EXPECT_EQ(plan(PartitionKind::kAuto, 8, equal_workers(4)).kind, PartitionKind::kHead);
  EXPECT_EQ(plan(PartitionKind::kAuto, 1, equal_workers(1)).kind, PartitionKind::kHead);
  for (const auto& [heads, workers] : {std::pair{1, 3}, {8, 12}, {3, 2}, {8, 5}, {2, 5}}) {
    const PlannedPartition planned =
        plan(PartitionKind::kAuto, heads, equal_workers(static_cast<size_t>(workers)));
    EXPECT_EQ(planned.kind, PartitionKind::kHeadSequence);
    for (int32_t i = 0; i < workers; ++i) {
      EXPECT_NEAR(planned.partition.share_of(i), 1.0 / workers, 0.01) << heads << " " << workers;
    }
    EXPECT_LE(planned.partition.tiles.size(), static_cast<size_t>(heads + workers));
  }
}

TEST(Partition, EightHeadsOverTwelveWorkers) {
  const PlannedPartition planned = plan(PartitionKind::kHeadSequence, 8, equal_workers(12));
  EXPECT_EQ(planned.partition.num_blocks, 1200);
  EXPECT_EQ(planned.lanes.num_blocks, (std::vector<int32_t>{400, 400, 400}));
  const std::vector<KvTile>& tiles = planned.partition.tiles;
  EXPECT_EQ(tiles[0], (KvTile{0, {0, 1}, {0, 800}}));
  EXPECT_EQ(tiles[1], (KvTile{1, {0, 1}, {800, 1200}}));
  EXPECT_EQ(tiles[2], (KvTile{1, {1, 2}, {0, 400}}));
  EXPECT_EQ(tiles[3], (KvTile{2, {1, 2}, {400, 1200}}));
}

TEST(Partition, RunsKeepTilesWholeAndRequestsStayInOneLane) {
  EXPECT_EQ(plan(PartitionKind::kSequence, 2, equal_workers(3)).lanes.run_length, 4);
  EXPECT_EQ(plan(PartitionKind::kRequest, 2, equal_workers(3)).lanes.run_length, 0);
}

// Every kind, any speeds and budgets: the tiles cover the cache once, fit the memory, and shares of
// those that can follow speed do.
TEST(Partition, CoversTheCacheWhateverTheWorkers) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Rng rng(seed);
    const auto num_kv_heads = static_cast<int32_t>(1 + rng.next_below(16));
    std::vector<PartitionWorker> workers = equal_workers(1 + rng.next_below(12));
    double total = 0;
    for (PartitionWorker& worker : workers) {
      worker.speed = 0.2 + rng.next_float();
      worker.budget_bytes = (400 + rng.next_below(4000)) * 1024;
      total += worker.speed;
    }
    for (const auto kind : {PartitionKind::kAuto,
                            PartitionKind::kHead,
                            PartitionKind::kRequest,
                            PartitionKind::kSequence,
                            PartitionKind::kHeadSequence}) {
      const PlannedPartition planned = plan(kind, num_kv_heads, workers);
      ASSERT_TRUE(planned.partition.verify().ok()) << seed;
      ASSERT_EQ(planned.lanes.total(), planned.partition.num_blocks);
      for (size_t i = 0; i < workers.size(); ++i) {
        const double share = planned.partition.share_of(static_cast<int32_t>(i));
        const double bytes = share * planned.partition.num_blocks * num_kv_heads * 1024;
        ASSERT_LE(bytes, static_cast<double>(workers[i].budget_bytes) + 1) << seed;
        if (kind == PartitionKind::kSequence || kind == PartitionKind::kRequest) {
          ASSERT_NEAR(share, workers[i].speed / total, 0.01) << seed;
        }
        if (kind == PartitionKind::kHeadSequence) {
          ASSERT_NEAR(share, workers[i].speed / total, 0.01 + 2.0 / 32 / num_kv_heads) << seed;
        }
      }
    }
  }
}

}  // namespace
}  // namespace lamina
