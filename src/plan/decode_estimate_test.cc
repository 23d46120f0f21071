#include "plan/decode_estimate.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

// Seconds of one layer of a sequence each; a slice takes no less than 2.
class LinearCosts : public StepCosts {
 public:
  [[nodiscard]] double model_s(double num_tokens) const override {
    return std::max(2.0, 0.5 * num_tokens);
  }
  [[nodiscard]] double attention_s(double /*num_tokens*/, double num_positions) const override {
    return 0.01 * num_positions;
  }
  [[nodiscard]] WireTimes wire(double num_tokens) const override {
    return {.latency_s = 0.1,
            .q_s = 0.02 * num_tokens,
            .kv_s = 0.03 * num_tokens,
            .out_s = 0.02 * num_tokens,
            .busiest_s = 0.05 * num_tokens};
  }
  [[nodiscard]] double host_s() const override { return 0.4; }
  [[nodiscard]] double kv_projection_share() const override { return 0.25; }
};

TEST(DecodeEstimate, OneMicroBatchTakesTheSumOfItsParts) {
  const StepEstimate step =
      estimate_step(LinearCosts(), {.num_attention_workers = 1, .overlap = false}, 1, 10, 100);
  EXPECT_DOUBLE_EQ(step.model_s, 5);
  EXPECT_DOUBLE_EQ(step.attention_s, 10);
  EXPECT_DOUBLE_EQ(step.wire_s, 0.8);
  EXPECT_DOUBLE_EQ(step.step_s, 5 + 10 + 0.8 + 0.4);
  EXPECT_DOUBLE_EQ(step.tokens_per_s, 10 / step.step_s);
  EXPECT_DOUBLE_EQ(step.model_busy, 5 / step.step_s);
  EXPECT_EQ(step.limit, Limit::kSequence);
}

TEST(DecodeEstimate, OverlapHidesTheProjectionAndTheWireOfKAndV) {
  const StepEstimate step = estimate_step(LinearCosts(), {.num_attention_workers = 1}, 1, 10, 100);
  // Attention waits for 0.75 of the slice and for q: 3.75 + 10 + (0.8 - 0.3).
  EXPECT_DOUBLE_EQ(step.step_s, 3.75 + 10 + 0.5 + 0.4);
}

TEST(DecodeEstimate, LongProjectionsHideAttentionInstead) {
  // Attention over one position ends before k and v are there: the new key's share is all that
  // follows, and with one position that is everything.
  const StepEstimate step = estimate_step(LinearCosts(), {.num_attention_workers = 1}, 1, 10, 1);
  EXPECT_DOUBLE_EQ(step.step_s, 5 + 0.1 + 0.8 + 0.4);
}

TEST(DecodeEstimate, MicroBatchesAreBoundByTheBusierPool) {
  const PlacementSpec two{.num_attention_workers = 1, .num_micro_batches = 2, .overlap = false};
  const StepEstimate attention = estimate_step(LinearCosts(), two, 1, 10, 200);
  EXPECT_DOUBLE_EQ(attention.step_s, 2 * 10 + 0.4);
  EXPECT_EQ(attention.num_tokens, 5);
  const StepEstimate alone = estimate_step(LinearCosts(), two, 1, 10, 55);
  EXPECT_DOUBLE_EQ(alone.step_s, 2.5 + 2.75 + 0.1 + 5 * 0.07 + 0.4);  // more than twice either
  PlacementSpec replicas = two;
  replicas.num_replicas = 2;
  replicas.num_micro_batches = 3;
  const StepEstimate model = estimate_step(LinearCosts(), replicas, 1, 60, 1);
  EXPECT_DOUBLE_EQ(model.step_s, 3 * 10 / 2.0 + 0.4);
}

// Slices that take turns with attention are faster than those that never rest, and a step of theirs
// is never shorter than those.
TEST(DecodeEstimate, RestedSlicesAreNoFasterThanTheirDeviceWithoutRest) {
  class Rested final : public LinearCosts {
   public:
    [[nodiscard]] PaceFactors in_turns(double) const override { return {.slices = 0.75}; }
    [[nodiscard]] WireTimes wire(double) const override { return {}; }
    [[nodiscard]] double host_s() const override { return 0; }
  };
  const PlacementSpec one{.num_attention_workers = 1, .overlap = false};
  const StepEstimate rests = estimate_step(Rested(), one, 1, 8, 100);
  EXPECT_DOUBLE_EQ(rests.step_s, 3 + 8);
  EXPECT_DOUBLE_EQ(rests.model_s, 3);
  const StepEstimate hardly = estimate_step(Rested(), one, 1, 8, 2);
  EXPECT_DOUBLE_EQ(hardly.step_s, 4);  // more than 3 + 0.16
  EXPECT_DOUBLE_EQ(hardly.model_s, 4);
  EXPECT_EQ(hardly.limit, Limit::kModel);
}

TEST(DecodeEstimate, TheNetworkIsAPoolToo) {
  class SlowWire final : public StepCosts {
   public:
    [[nodiscard]] double model_s(double) const override { return 1; }
    [[nodiscard]] double attention_s(double, double) const override { return 1; }
    [[nodiscard]] WireTimes wire(double) const override {
      return {.q_s = 4, .out_s = 1, .busiest_s = 4};
    }
    [[nodiscard]] double host_s() const override { return 0; }
    [[nodiscard]] double kv_projection_share() const override { return 0; }
  };
  const StepEstimate step =
      estimate_step(SlowWire(), {.num_attention_workers = 1, .num_micro_batches = 3}, 4, 3, 10);
  EXPECT_DOUBLE_EQ(step.step_s, 12);
  EXPECT_EQ(step.limit, Limit::kNetwork);
  EXPECT_DOUBLE_EQ(step.network_busy, 1);
}

// Slices of 4 and attention of 1 a layer, three layers.
class SharedCosts final : public StepCosts {
 public:
  explicit SharedCosts(PaceFactors factors) : factors_(factors) {}
  [[nodiscard]] double model_s(double) const override { return 12; }
  [[nodiscard]] double attention_s(double, double) const override { return 3; }
  [[nodiscard]] WireTimes wire(double) const override { return {}; }
  [[nodiscard]] double host_s() const override { return 0; }
  [[nodiscard]] double kv_projection_share() const override { return 0; }
  [[nodiscard]] PaceFactors in_turns(double) const override { return {1, 1.5}; }
  [[nodiscard]] PaceFactors side_by_side(double) const override { return factors_; }

 private:
  PaceFactors factors_;
};

// Attention takes 6 beside slices, which do as much in that time as they do alone in 4.
TEST(DecodeEstimate, PoolsOfOneMachineSlowEachOtherDownWhileBothWork) {
  const SharedCosts costs({.slices = 1.5, .attention = 2});
  const PlacementSpec two{.num_attention_workers = 1, .num_micro_batches = 2};
  const StepEstimate step = estimate_step(costs, two, 3, 8, 100);
  EXPECT_DOUBLE_EQ(step.attention_s, 6);
  EXPECT_DOUBLE_EQ(step.model_s, 6 + (12 - 4));
  const StepEstimate one = estimate_step(costs, {.num_attention_workers = 1}, 3, 8, 100);
  EXPECT_DOUBLE_EQ(one.model_s, 12);  // they take turns
  EXPECT_DOUBLE_EQ(one.attention_s, 4.5);
}

}  // namespace
}  // namespace lamina
