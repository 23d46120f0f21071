#include "convert/projection_cost.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

// Llama-3.1-70B in bfloat16.
ProjectionShape llama_70b() {
  return {.in_width = 8192,
          .q_width = 8192,
          .kv_width = 2048,
          .element_bytes = 2,
          .q_bytes = 16384,
          .kv_bytes = 4096};
}

// By hand: everything takes whole microseconds.
TEST(ProjectionCostTest, FollowsTheTimeLine) {
  const ProjectionShape shape{.in_width = 1000,
                              .q_width = 1000,
                              .kv_width = 500,
                              .element_bytes = 2,
                              .q_bytes = 4,
                              .kv_bytes = 2};
  ProjectionRates rates{.flop_per_s = 1e12,  // 2 us for q, 1 us for k and v
                        .bytes_per_s = 1e15,
                        .launch_s = 1e-6,
                        .wire_latency_s = 5e-6,
                        .wire_bytes_per_s = 1e6,  // 4 us and 2 us
                        .attention_bytes_per_s = 2e6};
  ProjectionWorkload workload{.batch = 1, .context_len = 1};  // read in 1 us
  // q 0-3, k and v 3-5, wire 3-7 and 7-9, there 5 later.
  EXPECT_NEAR(estimate_projection(shape, rates, workload).split_us, 14.0, 1e-6);
  // All 0-4, wire 4-8 and 8-10.
  EXPECT_NEAR(estimate_projection(shape, rates, workload).fused_us, 15.0, 1e-6);
  // Cached tokens are read from the moment q is there: 7 + 5 + 10, and 8 + 5 + 10.
  workload.context_len = 10;
  EXPECT_NEAR(estimate_projection(shape, rates, workload).split_us, 22.0, 1e-6);
  EXPECT_NEAR(estimate_projection(shape, rates, workload).fused_us, 23.0, 1e-6);
  // Bound by memory: q reads 2 MB, k and v 1 MB, as slowly as that takes 20 and 10 us; the few
  // thousand bytes of the activations beside it.
  rates.bytes_per_s = 1e11;
  EXPECT_NEAR(estimate_projection(shape, rates, workload).split_us, 21.04 + 4 + 5 + 10, 1e-6);
}

TEST(ProjectionCostTest, SplitsWhereQWouldWaitAndFusesWhereTheLaunchCounts) {
  // Long contexts: attention is what everything waits for, and q starts it.
  EXPECT_FALSE(estimate_projection(llama_70b(), {}, {.batch = 64, .context_len = 4096}).fuses());
  // No context to read: k and v are what it waits for, and one launch is less than two.
  EXPECT_TRUE(estimate_projection(llama_70b(), {}, {.batch = 1, .context_len = 1}).fuses());
  // A window is the context that counts.
  ProjectionShape windowed = llama_70b();
  windowed.window = 1;
  EXPECT_TRUE(estimate_projection(windowed, {}, {.batch = 1, .context_len = 4096}).fuses());
}

TEST(ProjectionCostTest, TiesFuse) {
  ProjectionRates rates;
  rates.launch_s = 0.0;
  rates.flop_per_s = rates.bytes_per_s = 1e30;  // products take no time
  const ProjectionEstimate tie = estimate_projection({.q_bytes = 8, .kv_bytes = 8}, rates, {});
  EXPECT_EQ(tie.split_us, tie.fused_us);
  EXPECT_TRUE(tie.fuses());
}

}  // namespace
}  // namespace lamina
