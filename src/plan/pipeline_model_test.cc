#include "plan/pipeline_model.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

TEST(Rotation, MovesOnByOneReplicaASliceForOneMoreBatchThanReplicas) {
  const Rotation rotation{.num_micro_batches = 3, .num_replicas = 2};
  EXPECT_EQ(rotation.initial_replica(0), 0);
  EXPECT_EQ(rotation.initial_replica(1), 1);
  EXPECT_EQ(rotation.initial_replica(2), 0);
  for (int32_t slice = 0; slice < 6; ++slice) {
    EXPECT_EQ(rotation.replica_of(1, slice), (1 + slice) % 2);
  }
  const Rotation alone{.num_micro_batches = 2, .num_replicas = 1};
  EXPECT_EQ(alone.replica_of(0, 7), 0);
}

TEST(PipelineModel, ThePeriodIsWhateverIsShort) {
  const LayerTimes times{.model_s = 2, .attention_s = 1, .rest_s = 1, .wire_s = 0.5};
  EXPECT_DOUBLE_EQ(layer_period_s({1, 1}, times), 3.5);
  EXPECT_DOUBLE_EQ(layer_period_s({2, 1}, times), 4);    // the model
  EXPECT_DOUBLE_EQ(layer_period_s({3, 2}, times), 3.5);  // a round trip
  EXPECT_DOUBLE_EQ(layer_period_s({4, 2}, times), 4);
  EXPECT_DOUBLE_EQ(layer_period_s({4, 4}, times), 4);  // attention
}

// While slices are bound by reading the weights, two half batches read them twice: only hidden
// attention is won. Once they are bound by computing, attention comes for nothing.
TEST(PipelineModel, ChoosesByWhatBindsTheSlices) {
  const LayerCosts weights{
      .slice_base_s = 10e-3, .attention_s = 2e-3, .rest_s = 2e-3, .wire_s = 1e-3};
  EXPECT_EQ(choose_micro_batches(weights, 64, 1, 3), 1);
  const LayerCosts computing{
      .slice_per_token_s = 0.2e-3, .attention_s = 12e-3, .rest_s = 12e-3, .wire_s = 0.1e-3};
  EXPECT_EQ(choose_micro_batches(computing, 64, 1, 3), 2);
  // A round trip as long as everything else needs a third to hide it.
  const LayerCosts far{
      .slice_per_token_s = 0.2e-3, .attention_s = 12e-3, .rest_s = 12e-3, .wire_s = 10e-3};
  EXPECT_EQ(choose_micro_batches(far, 64, 1, 3), 3);
  EXPECT_EQ(choose_micro_batches(far, 2, 1, 3), 2);  // no more than sequences
  // The paper's case: t_a = t_m / (n - 1) with R = n - 1.
  const LayerCosts paper{
      .slice_per_token_s = 3 * 0.2e-3, .attention_s = 3 * 6.4e-3, .rest_s = 3 * 6.4e-3};
  EXPECT_EQ(choose_micro_batches(paper, 64, 2, 4), 3);
}

}  // namespace
}  // namespace lamina
