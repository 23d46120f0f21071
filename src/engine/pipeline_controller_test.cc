#include "engine/pipeline_controller.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

using std::chrono::milliseconds;

// A model of a machine: what a controller would measure with so many micro-batches of 64 sequences.
struct Machine {
  double base_s = 0;
  double per_token_s = 0;
  double attention_s = 0;  // of all sequences
  double wire_s = 0;

  [[nodiscard]] PipelineSample run(int32_t num_micro_batches) const {
    PipelineSample sample;
    const double tokens = 64.0 / num_micro_batches;
    for (int i = 0; i < 20; ++i) {
      sample.decode_slices.add(tokens, base_s + per_token_s * tokens);
      sample.slice_s += base_s + per_token_s * tokens;
      sample.attention_s += attention_s / num_micro_batches;
      sample.rest_s += attention_s / num_micro_batches;
      ++sample.num_layers;
    }
    sample.worker_busy_s = sample.attention_s;
    // Seen where the replica waits for an output: with one micro-batch, or where slices are short.
    const bool replica_waits = num_micro_batches == 1 || base_s < attention_s / num_micro_batches;
    sample.wire_s = replica_waits ? wire_s : 0;
    return sample;
  }
};

int32_t settle(const Machine& machine, PipelineController& controller, int num_updates = 40) {
  for (int i = 0; i < num_updates; ++i) {
    const int32_t n = controller.num_active();
    std::vector<Scheduler::Load> loads(3);
    for (int32_t j = 0; j < n; ++j) loads[static_cast<size_t>(j)] = {64 / n, 64000 / n};
    controller.update(machine.run(n), milliseconds(500), loads, {.num_workers = 1});
  }
  return controller.num_active();
}

PipelineController automatic() {
  return PipelineController({.rotation = {3, 1}, .is_auto = true, .num_layers = 4});
}

TEST(PipelineController, KeepsWhatItIsTold) {
  PipelineController controller({.rotation = {3, 2}, .is_auto = false, .num_layers = 4});
  EXPECT_EQ(settle({.base_s = 1, .attention_s = 0.01}, controller), 3);
}

// It begins with one batch, whose size says nothing of smaller ones: it has to try.
TEST(PipelineController, FindsThatComputingHidesAttention) {
  PipelineController controller = automatic();
  EXPECT_EQ(controller.num_active(), 1);
  const Machine machine{.base_s = 1e-4, .per_token_s = 2e-4, .attention_s = 12e-3, .wire_s = 1e-4};
  EXPECT_EQ(settle(machine, controller), 2);
}

TEST(PipelineController, ReturnsToOneWhereWeightsAreReadTwice) {
  PipelineController controller = automatic();
  const Machine machine{.base_s = 10e-3, .per_token_s = 1e-6, .attention_s = 4e-3, .wire_s = 1e-4};
  EXPECT_EQ(settle(machine, controller), 1);
}

TEST(PipelineController, AThirdHidesALongRoundTrip) {
  PipelineController controller = automatic();
  const Machine machine{.base_s = 1e-4, .per_token_s = 2e-4, .attention_s = 12e-3, .wire_s = 9e-3};
  EXPECT_EQ(settle(machine, controller), 3);
}

// What of attention the slice hides counts for the pool, not for a layer's way through it.
TEST(PipelineController, OverlapShortensALayer) {
  PipelineController controller({.rotation = {1, 1}, .is_auto = false, .num_layers = 1});
  PipelineSample sample;
  sample.decode_slices.add(8, 1e-3);
  sample.num_layers = 1;
  sample.attention_s = 2.4e-3;
  sample.rest_s = 1.5e-3;
  sample.wire_s = 1e-3;
  const std::vector<Scheduler::Load> loads = {{8, 300}};
  controller.update(sample, milliseconds(500), loads, {.num_workers = 1});
  EXPECT_NEAR(controller.stats().bound_seconds, 4.5e-3, 1e-9);  // 2 slices, rest, wire
  sample.wire_s = 0;                                            // nobody saw it this time
  controller.update(sample, milliseconds(500), loads, {.num_workers = 1});
  EXPECT_NEAR(controller.stats().wire_seconds, 1e-3, 1e-9);
}

TEST(PipelineController, ReportsTimesBoundsIdleAndImbalance) {
  PipelineController controller(
      {.rotation = {2, 1},
       .is_auto = false,
       .num_layers = 10,
       .work = {.weight_bytes = 1e6, .flop_per_token = 3e6, .kv_bytes_per_position = 100},
       .rates = {.read_bytes_per_s = 1e9, .flop_per_s = 1e9}});
  PipelineSample sample;
  sample.decode_slices.add(8, 2e-3);
  sample.slice_s = 0.25;
  sample.num_layers = 1;
  sample.attention_s = 1e-3;
  sample.rest_s = 0.5e-3;
  sample.worker_busy_s = 0.2;
  sample.wire_s = 0.5e-3;
  const std::vector<Scheduler::Load> loads = {{10, 300}, {6, 100}};
  controller.add_step(milliseconds(50));
  controller.add_step(milliseconds(40));
  controller.update(sample, milliseconds(500), loads, {.num_workers = 2, .kv_bytes_per_s = 1e7});
  const PipelineStats& stats = controller.stats();
  EXPECT_NEAR(stats.step_seconds, 0.045, 1e-9);
  EXPECT_NEAR(stats.bound_seconds, 0.044, 1e-9);  // 2 x 2 ms x 11 slices
  EXPECT_NEAR(stats.model_seconds, 0.022, 1e-9);
  EXPECT_NEAR(stats.attention_seconds, 0.01, 1e-9);
  EXPECT_NEAR(stats.wire_seconds, 0.005, 1e-9);
  EXPECT_NEAR(stats.model_bound_seconds, 0.024, 1e-9);      // 8 sequences compute
  EXPECT_NEAR(stats.attention_bound_seconds, 0.002, 1e-9);  // 200 positions
  EXPECT_NEAR(stats.model_idle, 0.5, 1e-9);
  EXPECT_NEAR(stats.attention_idle, 0.8, 1e-9);
  EXPECT_NEAR(stats.sequence_imbalance, 1.25, 1e-9);
  EXPECT_NEAR(stats.context_imbalance, 1.5, 1e-9);
  EXPECT_NE(controller.report().find("45.00 ms a step (bound 44.00)"), std::string::npos);
}

}  // namespace
}  // namespace lamina
