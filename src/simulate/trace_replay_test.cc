#include "simulate/trace_replay.h"

#include <gtest/gtest.h>

#include "plan/decode_estimate.h"

namespace lamina::simulate {
namespace {

class Costs final : public StepCosts {
 public:
  double base_s = 1.0;
  double token_s = 0.0;
  double position_s = 0.0;
  double busiest_s = 0.0;

  [[nodiscard]] double model_s(double num_tokens) const override {
    return base_s + token_s * num_tokens;
  }
  [[nodiscard]] double attention_s(double /*num_tokens*/, double num_positions) const override {
    return position_s * num_positions;
  }
  [[nodiscard]] WireTimes wire(double /*num_tokens*/) const override {
    return {.busiest_s = busiest_s};
  }
  [[nodiscard]] double host_s() const override { return 0; }
  [[nodiscard]] double kv_projection_share() const override { return 0; }
};

ReplayConfig config(int32_t num_blocks, int32_t num_micro_batches = 1) {
  return {.placement = {.num_attention_workers = 1,
                        .num_micro_batches = num_micro_batches,
                        .overlap = false},
          .num_layers = 4,
          .blocks = {{num_blocks}},
          .block_size = 1,
          .max_num_seqs = 64};
}

ReplayResult run(const ReplayConfig& config,
                 const Costs& costs,
                 const std::vector<ReplayRequest>& requests) {
  return replay(config, costs, requests).value_or_throw();
}

TEST(TraceReplay, ASequenceAloneTakesAStepForEachToken) {
  const ReplayResult result = run(config(100), Costs(), {{0, 10, 5}});
  EXPECT_EQ(result.num_tokens, 5);
  EXPECT_EQ(result.num_steps, 5);
  EXPECT_DOUBLE_EQ(result.duration_s, 5);
  EXPECT_DOUBLE_EQ(result.ttft_s.p50, 1);
  EXPECT_DOUBLE_EQ(result.tbt_s.p99, 1);
  EXPECT_DOUBLE_EQ(result.mean_batch, 1);
  EXPECT_DOUBLE_EQ(result.model_idle, 0);
  EXPECT_DOUBLE_EQ(result.attention_idle, 1);
  EXPECT_FALSE(result.is_overloaded);
}

TEST(TraceReplay, TimeWithoutRequestsIsIdle) {
  const ReplayResult result = run(config(100), Costs(), {{0, 10, 2}, {8, 10, 2}});
  EXPECT_DOUBLE_EQ(result.duration_s, 10);
  EXPECT_DOUBLE_EQ(result.idle, 0.6);
  EXPECT_DOUBLE_EQ(result.tokens_per_s, 0.4);
}

TEST(TraceReplay, ARequestWaitsForTheStepUnderWay) {
  // The second one comes in the middle of the first one's second step, and joins the third.
  const ReplayResult result = run(config(100), Costs(), {{0, 10, 4}, {1.5, 10, 1}});
  EXPECT_DOUBLE_EQ(result.ttft_s.p99, 1);
  EXPECT_NEAR(result.ttft_s.mean, (1 + 1.5) / 2, 1e-6);
  EXPECT_DOUBLE_EQ(result.duration_s, 4);
  EXPECT_DOUBLE_EQ(result.mean_batch, 1.25);
}

TEST(TraceReplay, MemoryBoundsTheBatch) {
  // Room for two sequences of 12 tokens, and a block of growth for each that runs.
  const std::vector<ReplayRequest> requests(6, {0, 10, 2});
  const ReplayResult result = run(config(26), Costs(), requests);
  EXPECT_EQ(result.num_tokens, 12);
  EXPECT_DOUBLE_EQ(result.mean_batch, 2);
  EXPECT_DOUBLE_EQ(result.duration_s, 6);
  EXPECT_LE(result.peak_blocks, 1.0);
  EXPECT_FALSE(result.is_overloaded);  // a load that comes all at once has a queue, and an end
}

TEST(TraceReplay, WhoIsPreemptedIsRecomputedAndEndsAllTheSame) {
  const std::vector<ReplayRequest> requests(4, {0, 4, 12});
  const ReplayResult result = run(config(40), Costs(), requests);
  EXPECT_GT(result.num_preemptions, 0U);
  EXPECT_EQ(result.num_tokens, 48);
}

// Two micro-batches of equal cost keep the pool that takes longer busy all the time.
TEST(TraceReplay, MicroBatchesSharePools) {
  Costs costs;
  costs.base_s = 2.0;
  costs.position_s = 0.1;
  const std::vector<ReplayRequest> requests(2, {0, 10, 50});
  const ReplayResult alone = run(config(200, 1), costs, {requests.begin(), requests.begin() + 1});
  const ReplayResult both = run(config(200, 2), costs, requests);
  // Attention takes 1.1 s and more, alone a step is the sum.
  EXPECT_GT(alone.tbt_s.p50, 4.0);
  EXPECT_NEAR(both.duration_s, alone.duration_s, 0.35 * alone.duration_s);
  EXPECT_GT(both.tokens_per_s, 1.4 * alone.tokens_per_s);
  EXPECT_GE(both.model_idle, -1e-9);
  EXPECT_GE(both.attention_idle, -1e-9);
  EXPECT_LT(std::min(both.model_idle, both.attention_idle), 0.2);
}

TEST(TraceReplay, NoPoolIsBusyMoreThanAllTheTime) {
  Costs costs;
  costs.base_s = 0.3;
  costs.token_s = 0.01;
  costs.position_s = 0.001;
  std::vector<ReplayRequest> requests;
  for (int32_t i = 0; i < 300; ++i) requests.push_back({0.7 * i, 20 + i % 37, 1 + i % 53});
  ReplayConfig three = config(4000, 3);
  three.placement.num_replicas = 2;
  const ReplayResult result = run(three, costs, requests);
  int64_t expected = 0;
  for (const ReplayRequest& request : requests) expected += request.num_generated_tokens;
  EXPECT_EQ(result.num_tokens, expected);
  EXPECT_GE(result.model_idle, -1e-9);
  EXPECT_GE(result.attention_idle, -1e-9);
}

// Fixed lengths, all at once: what the analytic model says of as many sequences.
TEST(TraceReplay, ASteadyLoadAgreesWithTheEstimate) {
  Costs costs;
  costs.base_s = 0.02;
  costs.token_s = 0.0005;
  costs.position_s = 2e-6;
  const std::vector<ReplayRequest> requests(400, {0, 100, 200});
  ReplayConfig all = config(200000);
  all.max_num_seqs = 400;
  const ReplayResult result = run(all, costs, requests);
  const StepEstimate step = estimate_step(costs, all.placement, 4, 400, 200);
  EXPECT_NEAR(result.tbt_s.mean, step.step_s, 0.02 * step.step_s);
  EXPECT_NEAR(result.tokens_per_s, step.tokens_per_s, 0.02 * step.tokens_per_s);
}

TEST(TraceReplay, SharedPrefillCostsItsTokens) {
  Costs costs;
  costs.base_s = 0;
  costs.token_s = 0.01;
  ReplayConfig shared = config(2000);
  shared.prefill = Prefill::kShared;
  shared.max_num_batched_tokens = 100;
  // 250 tokens of prompt in three chunks, the last of which gives the first token.
  const ReplayResult result = run(shared, costs, {{0, 250, 2}});
  EXPECT_NEAR(result.ttft_s.p50, 2.5, 1e-6);
  EXPECT_NEAR(result.tbt_s.p50, 0.01, 1e-6);
  EXPECT_EQ(result.num_steps, 4);
}

TEST(TraceReplay, OverloadIsTold) {
  std::vector<ReplayRequest> requests;
  for (int32_t i = 0; i < 200; ++i) requests.push_back({0.1 * i, 10, 10});
  // Ten at most run at once, for ten seconds each: one a second, of ten that come.
  EXPECT_TRUE(run(config(200), Costs(), requests).is_overloaded);
  for (ReplayRequest& request : requests) request.arrives_s *= 30;
  EXPECT_FALSE(run(config(200), Costs(), requests).is_overloaded);
}

TEST(TraceReplay, ABurstIsNoOverload) {
  std::vector<ReplayRequest> requests;
  for (int32_t i = 0; i < 200; ++i) requests.push_back({3.0 * i, 10, 10});
  for (int32_t i = 0; i < 40; ++i) requests.push_back({600, 10, 10});
  // The last to come finds a long queue; most of those before found none.
  EXPECT_FALSE(run(config(200), Costs(), requests).is_overloaded);
}

TEST(TraceReplay, RequestsThatCannotBeServedAreRefused) {
  const auto code = [](const std::vector<ReplayRequest>& requests) {
    return replay(config(20), Costs(), requests).status().code();
  };
  EXPECT_EQ(code({}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{0, 15, 6}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{0, 0, 6}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{0, 5, 0}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{1, 5, 1}, {0, 5, 1}}), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lamina::simulate
