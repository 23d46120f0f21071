#include "plan/analytic_costs.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

// One unit of everything, so that expected times can be reckoned by hand.
ModelWork small_model() {
  ModelWork model;
  model.name = "small";
  model.num_layers = 2;
  model.num_kv_heads = 4;
  model.head_dim = model.value_dim = 8;
  model.weight_bytes = model.dense_bytes = 1000;
  model.flop_per_token = 50;
  model.q_bytes = model.out_bytes = 128;
  model.kv_bytes = 128;
  model.carried_bytes = model.reduced_bytes = 64;
  return model;
}

DeviceSpec device() {
  return {.name = "unit",
          .flop_per_s = 1000,
          .memory_bytes = 1e6,
          .memory_bytes_per_s = 500,
          .link_bytes_per_s = 256,
          .network_bytes_per_s = 64,
          .power_w = 0,
          .dollars_per_h = 1};
}

Assumptions plain() {
  Assumptions plain = Assumptions::paper().ideal();
  plain.memory_utilization = 1.0;
  return plain;
}

PlannedPartition kv_of(const PlacementSpec& placement, const Assumptions& assumptions) {
  return plan_kv(small_model(), placement, {device(), device()}, assumptions, 1).value_or_throw();
}

TEST(AnalyticCosts, ProductsTakeTheLongerOfReadingAndComputing) {
  const PlacementSpec placement{.num_attention_workers = 1};
  const PlannedPartition kv = kv_of(placement, plain());
  const ModelWork model = small_model();
  const AnalyticCosts costs(model, placement, {device(), device()}, plain(), kv.partition);
  EXPECT_DOUBLE_EQ(costs.model_s(1), 2.0);    // 1000 bytes at 500
  EXPECT_DOUBLE_EQ(costs.model_s(100), 5.0);  // 5000 FLOP at 1000
}

TEST(AnalyticCosts, RanksShareProductsAndMeetTwiceALayer) {
  Assumptions assumptions = plain();
  assumptions.all_reduce_s = 0.25;
  const PlacementSpec placement{.tensor_parallel = 2, .num_attention_workers = 1};
  const PlannedPartition kv = kv_of(placement, assumptions);
  const ModelWork model = small_model();
  const AnalyticCosts costs(model, placement, {device(), device()}, assumptions, kv.partition);
  EXPECT_DOUBLE_EQ(costs.model_s(1), 1.0 + 4 * 0.25);
  assumptions.counts_reduced_bytes = true;
  const AnalyticCosts counted(model, placement, {device(), device()}, assumptions, kv.partition);
  // A ring of two: each sends 2 (2 - 1) / 2 of the 64 bytes.
  EXPECT_DOUBLE_EQ(counted.model_s(1), 1.0 + 4 * (0.25 + 64.0 / 256));
}

TEST(AnalyticCosts, AttentionReadsTheShareOfTheFullestWorker) {
  // A position has 2 layers x 4 heads x 16 elements x 2 bytes = 256 bytes.
  const ModelWork model = small_model();
  const auto seconds = [&](int32_t workers, PartitionKind kind) {
    const PlacementSpec placement{.num_attention_workers = workers, .partition = kind};
    const PlannedPartition kv = kv_of(placement, plain());
    return AnalyticCosts(model, placement, {device(), device()}, plain(), kv.partition)
        .attention_s(5, 500);
  };
  EXPECT_DOUBLE_EQ(seconds(1, PartitionKind::kHead), 256);
  EXPECT_DOUBLE_EQ(seconds(2, PartitionKind::kHead), 128);
  EXPECT_DOUBLE_EQ(seconds(3, PartitionKind::kHead), 128);  // one has two of the four heads
  EXPECT_NEAR(seconds(3, PartitionKind::kHeadSequence), 256.0 / 3, 0.01);
  EXPECT_DOUBLE_EQ(seconds(8, PartitionKind::kHead), 64);  // four stand by
  EXPECT_NEAR(seconds(8, PartitionKind::kHeadSequence), 32, 0.01);
}

TEST(AnalyticCosts, AWindowBoundsWhatALayerReads) {
  ModelWork model = small_model();
  model.windows = {std::nullopt, 20};
  const PlacementSpec placement{.num_attention_workers = 1};
  const PlannedPartition kv = kv_of(placement, plain());
  const AnalyticCosts costs(model, placement, {device(), device()}, plain(), kv.partition);
  EXPECT_DOUBLE_EQ(costs.attention_s(1, 100), 0.5 * (100 + 20) / 100 * (256.0 * 100 / 500));
  EXPECT_DOUBLE_EQ(costs.attention_s(1, 10), 256.0 * 10 / 500);
}

TEST(AnalyticCosts, TheWireCarriesWhatThePartitionSplits) {
  const ModelWork model = small_model();
  const auto wire = [&](PlacementSpec placement) {
    const PlannedPartition kv = kv_of(placement, plain());
    return AnalyticCosts(model, placement, {device(), device()}, plain(), kv.partition).wire(3);
  };
  const WireTimes alone = wire({.num_attention_workers = 1});
  EXPECT_DOUBLE_EQ(alone.q_s, 3 * 2 * 128.0 / 64);
  EXPECT_DOUBLE_EQ(alone.kv_s, 3 * 2 * 128.0 / 64);
  EXPECT_DOUBLE_EQ(alone.out_s, 3 * 2 * 128.0 / 64);
  EXPECT_DOUBLE_EQ(alone.busiest_s, 3 * 2 * 256.0 / 64);  // what is sent passes what comes back
  EXPECT_DOUBLE_EQ(alone.carried_s, 0);
  // Four workers with a head each have a NIC each, but there is one at the model's side.
  EXPECT_DOUBLE_EQ(wire({.num_attention_workers = 4}).q_s, alone.q_s);
  EXPECT_DOUBLE_EQ(wire({.tensor_parallel = 4, .num_attention_workers = 4}).q_s, alone.q_s / 4);
  // By sequence each worker is sent all queries, and answers in f32, which is twice as long.
  const WireTimes split = wire({.num_attention_workers = 2, .partition = PartitionKind::kSequence});
  EXPECT_DOUBLE_EQ(split.q_s, 2 * alone.q_s);
  EXPECT_DOUBLE_EQ(split.kv_s, alone.kv_s);
  EXPECT_DOUBLE_EQ(split.out_s, 4 * alone.out_s);
  // Two replicas hand the carried values on.
  EXPECT_DOUBLE_EQ(wire({.num_replicas = 2, .num_attention_workers = 1}).carried_s,
                   3 * 2 * 64.0 / 64);
}

TEST(AnalyticCosts, BlocksAreThoseOfTheAllocator) {
  Assumptions assumptions = plain();
  assumptions.block_size = 16;
  assumptions.reserved_bytes = 1000;
  // 4096 bytes a block: (1e6 - 1000) / 4096 = 243.9; two workers have half of each block.
  EXPECT_EQ(kv_of({.num_attention_workers = 1}, assumptions).partition.num_blocks, 243);
  EXPECT_EQ(kv_of({.num_attention_workers = 2}, assumptions).partition.num_blocks, 487);
  // Colocated the weights come first: (1e6 - 2000) / 4096 = 243.65.
  EXPECT_EQ(kv_of({}, assumptions).partition.num_blocks, 243);
  assumptions.reserved_bytes = 100000;  // (1e6 - 101000) / 4096 = 219.5
  EXPECT_EQ(kv_of({}, assumptions).partition.num_blocks, 219);
  // Codes of int8 with an f32 scale for each key and value: 16 + 8 bytes instead of 32.
  EXPECT_EQ(
      kv_of({.num_attention_workers = 1, .kv_dtype = DType::kI8}, assumptions).partition.num_blocks,
      900000 / (2 * 4 * 16 * 24));
  EXPECT_EQ(sequences_that_fit(243, 16, 100), std::floor(243 / (100 / 16.0 + 15 / 32.0)));
  EXPECT_EQ(sequences_that_fit(243, 1, 100), 2);
}

TEST(AnalyticCosts, WhatDoesNotFitIsSaid) {
  ModelWork model = small_model();
  const auto code = [&](const PlacementSpec& placement, double tokens) {
    return plan_kv(model, placement, {device(), device()}, plain(), tokens).status().code();
  };
  EXPECT_EQ(code({.num_attention_workers = 1}, 1e6), StatusCode::kResourceExhausted);
  EXPECT_EQ(code({.tensor_parallel = 3, .num_attention_workers = 1}, 1),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.tensor_parallel = 8}, 1), StatusCode::kOk);  // ranks have copies of KV heads
  model.weight_bytes = 3e6;
  EXPECT_EQ(code({.tensor_parallel = 2, .num_attention_workers = 1}, 1),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(code({.tensor_parallel = 4, .num_attention_workers = 1}, 1), StatusCode::kOk);
}

TEST(ModelWork, MoreTokensReadMoreExperts) {
  ModelWork model = small_model();
  model.dense_bytes = 100;
  model.expert_bytes = 800;
  model.expert_share = 0.25;
  EXPECT_DOUBLE_EQ(model.read_bytes(1), 300);
  EXPECT_DOUBLE_EQ(model.read_bytes(2), 100 + 800 * (1 - 0.75 * 0.75));
  EXPECT_NEAR(model.read_bytes(100), 900, 1e-6);
}

}  // namespace
}  // namespace lamina
