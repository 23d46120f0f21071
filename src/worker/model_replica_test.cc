// A replica between an engine's pipeline and attention that never answers.
#include "worker/model_replica.h"

#include <gmock/gmock.h>

#include "device/thread_pool.h"
#include "worker/replica_slots.h"
#include "worker/step_pipeline.h"

namespace lamina {
namespace {

using testing::HasSubstr;

constexpr StepCodecLimits kLimits{.max_micro_batches = 2,
                                  .num_replicas = 1,
                                  .max_sequences = 4,
                                  .max_tokens = 8,
                                  .max_logits_rows = 4,
                                  .max_blocks = 8,
                                  .vocab_size = 10};
constexpr Rotation kRotation{.num_micro_batches = 2, .num_replicas = 1};

struct TwoSlices final : SliceRunner {
  [[nodiscard]] int32_t num_slices() const override { return 2; }
  [[nodiscard]] int32_t num_ranks() const override { return 1; }
  Status begin(int32_t /*micro_batch*/, const StepInputs& /*inputs*/) override { return {}; }
  [[nodiscard]] int64_t num_rows(int32_t /*micro_batch*/) const override { return 0; }
  Status run_slices(std::span<const SliceRun> runs,
                    std::span<AttentionBackend* const> /*attention*/) override {
    calls.emplace_back(runs.begin(), runs.end());
    return {};
  }
  [[nodiscard]] TensorView logits() const override {
    return {values.data(), DType::kF32, {kLimits.max_logits_rows, kLimits.vocab_size}};
  }
  [[nodiscard]] size_t carried_bytes(int32_t /*batch*/, int32_t /*slice*/) const override {
    return 0;
  }
  void pack_carried(int32_t /*batch*/,
                    int32_t /*slice*/,
                    std::span<std::byte> /*to*/) const override {}
  void unpack_carried(int32_t /*batch*/,
                      int32_t /*slice*/,
                      std::span<const std::byte> /*from*/) override {}
  [[nodiscard]] size_t max_carried_bytes() const override { return 0; }

  mutable std::vector<float> values =
      std::vector<float>(static_cast<size_t>(kLimits.max_logits_rows) * kLimits.vocab_size);
  std::vector<std::vector<SliceRun>> calls;
};

// Has no output, or fails.
struct SilentAttention final : AttentionBackend {
  Status begin_step(int32_t /*batch*/,
                    const StepStart& /*start*/,
                    const StepPlan& /*plan*/) override {
    return {};
  }
  Status send_q(int32_t /*batch*/, int32_t /*idx*/, TensorView /*q*/) override { return {}; }
  Status send_kv(int32_t /*batch*/, int32_t /*idx*/, TensorView /*k*/, TensorView /*v*/) override {
    return {};
  }
  Status receive(int32_t /*batch*/, int32_t /*idx*/, TensorView /*out*/) override { return {}; }
  [[nodiscard]] bool only_enqueues() const override { return enqueues; }
  Result<bool> has_output(int32_t micro_batch, int32_t /*idx*/) override {
    if (micro_batch == failing_batch) return internal_error("the pool of blocks is in disorder");
    return false;
  }
  void add_awaited(int32_t /*batch*/,
                   int32_t /*idx*/,
                   std::vector<AwaitedMessage>& /*awaited*/) const override {}

  int32_t failing_batch = -1;
  bool enqueues = false;
};

class ModelReplicaTest : public testing::Test {
 protected:
  explicit ModelReplicaTest(bool in_groups = false) {
    attention_.enqueues = in_groups;
    const EndpointConfig at_engine{.kind = TransportKind::kLoopback,
                                   .self = {1, 1},
                                   .peer = {2, 1},
                                   .receive_slots = engine_slots_for_replica(kLimits),
                                   .send_slots = replica_slots_for_engine(kLimits)};
    const EndpointConfig at_replica{.kind = TransportKind::kLoopback,
                                    .self = {2, 1},
                                    .peer = {1, 1},
                                    .receive_slots = at_engine.send_slots,
                                    .send_slots = at_engine.receive_slots};
    auto pending = prepare_endpoint(at_engine);
    auto other_pending = prepare_endpoint(at_replica);
    const std::string blob = pending->blob();
    std::vector<std::unique_ptr<Endpoint>> replicas;
    replicas.push_back(pending->complete(other_pending->blob(), Deadline::expired()));
    to_engine_ = other_pending->complete(blob, Deadline::expired());
    pipeline_.emplace(StepPipelineConfig{.epoch = 1,
                                         .rotation = kRotation,
                                         .num_layers = 1,
                                         .limits = kLimits,
                                         .in_groups = in_groups},
                      std::move(replicas));
    replica_.emplace(
        ModelReplicaConfig{.epoch = 1,
                           .rotation = kRotation,
                           .limits = kLimits,
                           .wait_limit = std::chrono::seconds(5)},
        ReplicaLinks{.engine = to_engine_.get(), .replicas = {nullptr}, .attention = {&attention_}},
        runner_,
        StreamView(pool_),
        clock_);
  }

  void start(int32_t micro_batch) {
    StepPlan plan;
    plan.starts = {{.slot = micro_batch, .sampling = {}, .num_prompt_tokens = 2}};
    plan.sequences = {{.slot = micro_batch,
                       .num_tokens = 2,
                       .tokens = {1, 2},
                       .new_blocks = {micro_batch},
                       .starts = true,
                       .samples = true}};
    ASSERT_TRUE(pipeline_->start(micro_batch, std::move(plan)).ok());
  }

  // A token more of the micro-batch's sequence.
  void go_on(int32_t micro_batch) {
    StepPlan plan;
    plan.sequences = {{.slot = micro_batch,
                       .first_position = 2,
                       .num_tokens = 1,
                       .tokens = {0},
                       .samples = true}};
    ASSERT_TRUE(pipeline_->start(micro_batch, std::move(plan)).ok());
  }

  // As long as there is something to do.
  Status run() {
    while (true) {
      const Result<bool> did = replica_->step();
      if (!did.ok()) return did.status();
      if (!*did) return {};
    }
  }

  ManualClock clock_;
  ThreadPool pool_{1};
  TwoSlices runner_;
  SilentAttention attention_;
  std::unique_ptr<Endpoint> to_engine_;
  std::optional<StepPipeline> pipeline_;
  std::optional<ModelReplica> replica_;
};

TEST_F(ModelReplicaTest, DoesNotWaitForEver) {
  start(0);
  EXPECT_TRUE(run().ok());
  clock_.advance(std::chrono::seconds(4));
  EXPECT_TRUE(run().ok());
  clock_.advance(std::chrono::seconds(2));
  const Status status = run();
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(pipeline_->poll().status().message(), HasSubstr("has waited 6 s"));
}

// Micro-batch 0 is under way too when the reason comes in the slot of micro-batch 1, and the
// replica has left.
TEST_F(ModelReplicaTest, TheReasonOfAFailureIsHeardThoughTheReplicaIsGone) {
  start(0);
  start(1);
  attention_.failing_batch = 1;
  const Status status = run();
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  to_engine_->fence_peer();
  EXPECT_THAT(pipeline_->poll().status().message(), HasSubstr("in disorder"));
}

class ModelReplicaInGroups : public ModelReplicaTest {
 protected:
  using Runs = std::vector<SliceRun>;

  ModelReplicaInGroups() : ModelReplicaTest(/*in_groups=*/true) {}

  // The micro-batch whose step has ended, or none.
  std::optional<int32_t> poll() {
    const auto finished = pipeline_->poll().value_or_throw();
    return finished ? std::optional(finished->micro_batch) : std::nullopt;
  }
};

TEST_F(ModelReplicaInGroups, StepsThatAreStartedTogetherRunTogether) {
  start(0);
  start(1);
  EXPECT_TRUE(run().ok());
  EXPECT_TRUE(runner_.calls.empty());  // more may be started
  EXPECT_EQ(poll(), std::nullopt);
  EXPECT_TRUE(run().ok());
  EXPECT_EQ(runner_.calls, (std::vector<Runs>{{{0, 0, 2}, {1, 0, 1}}, {{1, 1, 2}}}));
  EXPECT_EQ(poll(), 0);
  EXPECT_EQ(poll(), 1);
}

TEST_F(ModelReplicaInGroups, AGroupBeginsWhenTheOneBeforeHasEnded) {
  start(0);
  EXPECT_EQ(poll(), std::nullopt);
  start(1);  // too late for it
  EXPECT_TRUE(run().ok());
  EXPECT_EQ(runner_.calls, (std::vector<Runs>{{{0, 0, 2}}}));
  EXPECT_EQ(poll(), 0);
  go_on(0);
  EXPECT_EQ(poll(), std::nullopt);
  EXPECT_TRUE(run().ok());
  runner_.calls.erase(runner_.calls.begin());
  EXPECT_EQ(runner_.calls, (std::vector<Runs>{{{0, 0, 2}, {1, 0, 1}}, {{1, 1, 2}}}));
}

TEST(SequenceStates, ASequenceStartsPastWhatItsBlocksHold) {
  SequenceStates states(/*num_slots=*/1);
  StepPlan plan;
  plan.starts = {{.slot = 0, .sampling = {}, .num_prompt_tokens = 4}};
  plan.sequences = {{.slot = 0,
                     .first_position = 3,
                     .num_tokens = 1,
                     .tokens = {7},
                     .starts = true,
                     .samples = true}};
  GatheredInputs inputs;
  ASSERT_TRUE(states.apply(plan, inputs).ok());
  EXPECT_EQ(inputs.positions, std::vector<int32_t>{3});
  plan.starts.clear();
  plan.sequences.front().starts = false;
  plan.sequences.front().first_position = 5;  // though it has four tokens
  EXPECT_EQ(states.apply(plan, inputs).code(), StatusCode::kInvalidArgument);
}

TEST_F(ModelReplicaTest, RefusesToSampleWithinAPrompt) {
  StepPlan plan;
  plan.starts = {{.slot = 0, .sampling = {}, .num_prompt_tokens = 7}};
  plan.sequences = {{.slot = 0,
                     .num_tokens = 2,
                     .tokens = {1, 2},
                     .new_blocks = {0},
                     .starts = true,
                     .samples = true}};
  ASSERT_TRUE(pipeline_->start(0, std::move(plan)).ok());
  EXPECT_EQ(run().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(pipeline_->poll().status().message(), HasSubstr("within its prompt"));
}

}  // namespace
}  // namespace lamina
