// Two ranks on two GPUs of which one fails in the middle of a step, while the other's GPU may wait
// for it in a captured graph: the step ends with an error, and the next ones give what those before
// gave. Skipped with fewer GPUs.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <vector>

#include "device/cuda/memory.h"
#include "device/gpu_stream.h"
#include "exec/device_weights.h"
#include "support/fixture_model.h"
#include "support/paths.h"
#include "worker/local_attention.h"
#include "worker/rank_group.h"

namespace lamina {
namespace {

constexpr int32_t kNumRanks = 2;
// How long the other rank waits in the step that fails; a first step loads libraries in that time.
constexpr Duration kTimeout = std::chrono::seconds(20);

class FailingAttention final : public AttentionBackend {
 public:
  Status begin_step(int32_t, const StepStart&, const StepPlan&) override { return {}; }
  Status send_q(int32_t, int32_t, TensorView) override { return internal_error("no attention"); }
  Status send_kv(int32_t, int32_t, TensorView, TensorView) override { return {}; }
  Status receive(int32_t, int32_t, TensorView) override { return {}; }
  Result<bool> has_output(int32_t, int32_t) override { return true; }
  void add_awaited(int32_t, int32_t, std::vector<AwaitedMessage>&) const override {}
};

class CudaRanksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::num_devices() < kNumRanks) GTEST_SKIP() << "fewer than two GPUs";
    program_ =
        test::load_fixture(test::fixture_path("models/llama-gqa"), kNumRanks, /*max_tokens=*/4);
    const HeadRange kv_heads = {0, program_.attention().num_kv_heads};
    for (int32_t rank = 0; rank < kNumRanks; ++rank) {
      gpus_.push_back(std::make_unique<GpuStream>(Device{DeviceKind::kCuda, rank}));
      streams_.push_back(gpus_.back()->view());
      ModelShard& shard = program_.ranks[static_cast<size_t>(rank)];
      shard.weights = place_weights(shard.sliced.graph, std::move(shard.weights), streams_.back());
      attention_.push_back(std::make_unique<LocalAttention>(
          program_.attention_core(rank, kv_heads, test::kFixtureBlocks), streams_.back()));
    }
    group_ = std::make_unique<RankGroup>(
        program_.rank_models(streams_), program_.step_limits(), /*num_micro_batches=*/1, kTimeout);
  }

  // The first token of a sequence, over and over: every step writes the same key.
  Status step(std::span<AttentionBackend* const> attention) {
    SequenceStep sequence{.slot = 0, .first_position = 0, .num_tokens = 1};
    sequence.starts = true;
    sequence.new_blocks = {0};
    StepPlan plan;
    plan.sequences.push_back(sequence);
    static constexpr std::array<int32_t, 1> kIds = {3};
    static constexpr std::array<int32_t, 1> kZero = {0};
    LAMINA_RETURN_IF_ERROR(
        group_->begin(0, {.token_ids = kIds, .positions = kZero, .logits_rows = kZero}));
    for (AttentionBackend* backend : attention) {
      LAMINA_RETURN_IF_ERROR(backend->begin_step(0, {}, plan));
    }
    for (int32_t slice = 0; slice < group_->num_slices(); ++slice) {
      LAMINA_RETURN_IF_ERROR(
          group_->run_slices(std::array{SliceRun{0, slice, slice + 1}}, attention));
    }
    return {};
  }

  Result<std::vector<float>> logits() {
    const TensorView on_gpu = group_->logits();
    std::vector<float> values(static_cast<size_t>(on_gpu.shape.num_elements()));
    LAMINA_RETURN_IF_ERROR(
        copy(values.data(), on_gpu.data, values.size() * sizeof(float), streams_.front()));
    LAMINA_RETURN_IF_ERROR(synchronize(streams_.front()));
    LAMINA_RETURN_IF_ERROR(group_->check_exchanges());
    return values;
  }

  // Enqueued call by call, captured, replayed.
  void expect_steps(std::vector<float>& expected) {
    const std::array<AttentionBackend*, kNumRanks> both = {attention_[0].get(),
                                                           attention_[1].get()};
    for (int32_t i = 0; i < 4; ++i) {
      const Status status = step(both);
      ASSERT_TRUE(status.ok()) << status.to_string();
      const Result<std::vector<float>> values = logits();
      ASSERT_TRUE(values.ok()) << values.status().to_string();
      if (expected.empty()) expected = *values;
      EXPECT_EQ(*values, expected) << "step " << i;
    }
  }

  ModelProgram program_;
  std::vector<std::unique_ptr<GpuStream>> gpus_;
  std::vector<StreamView> streams_;
  std::vector<std::unique_ptr<LocalAttention>> attention_;
  std::unique_ptr<RankGroup> group_;
};

TEST_F(CudaRanksTest, AStepAfterAFailedOneGivesWhatThoseBeforeGave) {
  std::vector<float> expected;
  ASSERT_NO_FATAL_FAILURE(expect_steps(expected));
  FailingAttention failing;
  const std::array<AttentionBackend*, kNumRanks> one_fails = {attention_[0].get(), &failing};
  EXPECT_FALSE(step(one_fails).ok());
  EXPECT_FALSE(group_->check_exchanges().ok());
  ASSERT_NO_FATAL_FAILURE(expect_steps(expected));
}

}  // namespace
}  // namespace lamina
