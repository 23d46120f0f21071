#include "engine/serving_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>

#include "base/rng.h"

namespace lamina {
namespace {

constexpr int32_t kVocab = 1000;

int32_t next_token(const std::vector<int32_t>& tokens) {
  uint64_t hash = tokens.size();
  for (const int32_t token : tokens)
    hash = Rng(hash * 31 + static_cast<uint64_t>(token)).next_u64();
  return static_cast<int32_t>(hash % kVocab);
}

std::vector<int32_t> expected(std::vector<int32_t> tokens, int32_t count) {
  std::vector<int32_t> generated;
  for (int32_t i = 0; i < count; ++i) {
    generated.push_back(next_token(tokens));
    tokens.push_back(generated.back());
  }
  return generated;
}

// Workers whose tokens are a function of the sequence; the test decides when they fail or change.
class FakeBackend final : public StepBackend {
 public:
  Status start(int32_t /*micro_batch*/, StepPlan plan) override {
    plan_ = std::move(plan);
    return {};
  }
  void interrupt() override {}
  Result<std::optional<FinishedStep>> wait(Deadline /*deadline*/) override {
    {
      std::unique_lock lock(mutex_);
      is_inside_ = true;
      running_.notify_all();
      running_.wait(lock, [this] { return !is_held_; });
      is_inside_ = false;
      if (fail_next_) {
        fail_next_ = false;
        slots_.clear();
        return unavailable("attention worker 7 was lost");
      }
    }
    for (const SequenceStart& start : plan_.starts) slots_[start.slot].clear();
    FinishedStep finished;
    for (const SequenceStep& step : plan_.sequences) {
      SequenceOutput output{.slot = step.slot, .sampled = step.samples};
      auto& tokens = slots_[step.slot];
      tokens.resize(static_cast<size_t>(step.first_position));
      tokens.insert(tokens.end(), step.tokens.begin(), step.tokens.end());
      if (step.samples) output.token.id = next_token(tokens);
      for (const int32_t target : step.score_targets)
        output.prompt_scores.push_back({.id = target});
      finished.outputs.push_back(std::move(output));
    }
    return std::optional(std::move(finished));
  }
  Result<BlockLanes> open_session(int32_t min_blocks) override {
    const std::lock_guard lock(mutex_);
    if (is_out_) return unavailable("nobody is up");
    slots_.clear();
    has_session_ = true;
    return BlockLanes{{std::max(min_blocks, 16)}};
  }
  [[nodiscard]] bool has_session() const override { return has_session_; }
  BackendEvent poll_event() override {
    const std::lock_guard lock(mutex_);
    return std::exchange(event_, BackendEvent::kNone);
  }
  [[nodiscard]] Status loss_reason() const override { return unavailable("lost while idle"); }
  void on_event(std::function<void()> wake) override { wake_ = std::move(wake); }
  void close() override {}
  [[nodiscard]] std::vector<EngineStats::Worker> workers() const override { return {}; }
  [[nodiscard]] BackendTimes times() const override { return {}; }
  PipelineSample take_sample() override { return {}; }

  void hold(bool is_held) {
    const std::lock_guard lock(mutex_);
    is_held_ = is_held;
    running_.notify_all();
  }
  void wait_until_inside_step() {
    std::unique_lock lock(mutex_);
    running_.wait(lock, [this] { return is_inside_; });
  }
  void fail_next() {
    const std::lock_guard lock(mutex_);
    fail_next_ = true;
  }
  void set_out(bool is_out) {
    const std::lock_guard lock(mutex_);
    is_out_ = is_out;
  }
  void raise(BackendEvent event) {
    {
      const std::lock_guard lock(mutex_);
      event_ = event;
    }
    wake_();
  }

 private:
  std::mutex mutex_;
  std::condition_variable running_;
  bool is_held_ = false;
  StepPlan plan_;
  bool is_inside_ = false;
  bool fail_next_ = false;
  bool is_out_ = false;
  bool has_session_ = false;
  BackendEvent event_ = BackendEvent::kNone;
  std::function<void()> wake_;
  std::map<int32_t, std::vector<int32_t>> slots_;
};

// Collects the events of one request.
class Collector {
 public:
  EventSink sink() {
    return [this](GenerationEvent event) {
      const std::lock_guard lock(mutex_);
      if (const auto* delta = std::get_if<GenerationDelta>(&event)) {
        for (const ScoredToken& token : delta->tokens) ids_[delta->choice_idx].push_back(token.id);
        if (delta->finish_reason) ++num_finished_;
      } else if (const auto* scores = std::get_if<PromptScores>(&event)) {
        for (const ScoredToken& token : scores->tokens) scored_.push_back(token.id);
      } else {
        failure_ = std::get<GenerationFailure>(event).status;
      }
      changed_.notify_all();
    };
  }
  // Waits for `n` choices to finish or a failure.
  void wait(int32_t n = 1) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(
        lock, std::chrono::seconds(20), [&] { return num_finished_ >= n || !failure_.ok(); }));
  }
  void wait_for_tokens(size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(20), [&] { return ids_[0].size() >= count; }));
  }
  std::vector<int32_t> ids(int32_t choice = 0) {
    const std::lock_guard lock(mutex_);
    return ids_[choice];
  }
  std::vector<int32_t> scored() {
    const std::lock_guard lock(mutex_);
    return scored_;
  }
  Status failure() {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int32_t, std::vector<int32_t>> ids_;
  std::vector<int32_t> scored_;
  int32_t num_finished_ = 0;
  Status failure_;
};

class ServingEngineTest : public ::testing::Test {
 protected:
  static ServingEngineConfig config() {
    ServingEngineConfig config;
    config.scheduler = {
        .block_size = 4, .max_num_seqs = 4, .max_num_batched_tokens = 16, .max_logits_rows = 8};
    config.max_model_len = 64;
    config.vocab_size = kVocab;
    config.max_queued_sequences = 3;
    return config;
  }
  void start() {
    auto backend = std::make_unique<FakeBackend>();
    backend_ = backend.get();
    engine_ = std::make_unique<ServingEngine>(config(), std::move(backend), nullptr);
  }
  static GenerationRequest request(std::vector<int32_t> prompt, int32_t max_tokens) {
    GenerationRequest request;
    request.prompt_ids = std::move(prompt);
    request.max_tokens = max_tokens;
    return request;
  }
  // Waits until the engine holds `count` blocks or the time is up.
  void expect_blocks(int32_t count) {
    const Deadline deadline = Deadline::after(std::chrono::seconds(20));
    while (engine_->stats().num_blocks_used != count && !deadline.has_passed())
      std::this_thread::yield();
    EXPECT_EQ(engine_->stats().num_blocks_used, count);
  }

  FakeBackend* backend_ = nullptr;
  std::unique_ptr<ServingEngine> engine_;
};

TEST_F(ServingEngineTest, GeneratesEachChoice) {
  start();
  Collector collector;
  GenerationRequest wanted = request({1, 2, 3}, 10);
  wanted.n = 2;
  ASSERT_TRUE(engine_->submit(wanted, collector.sink()).ok());
  collector.wait(2);
  EXPECT_EQ(collector.ids(0), expected({1, 2, 3}, 10));
  EXPECT_EQ(collector.ids(1), expected({1, 2, 3}, 10));
  expect_blocks(0);
}

TEST_F(ServingEngineTest, ScoresAPromptWithoutGenerating) {
  start();
  Collector collector;
  GenerationRequest wanted = request({5, 6, 7, 8}, 0);
  wanted.prompt_logprobs = true;
  wanted.sampling.num_logprobs = 1;
  ASSERT_TRUE(engine_->submit(wanted, collector.sink()).ok());
  collector.wait();
  EXPECT_EQ(collector.scored(), (std::vector<int32_t>{6, 7, 8}));
  EXPECT_TRUE(collector.ids().empty());
}

TEST_F(ServingEngineTest, RefusesBadRequests) {
  start();
  Collector collector;
  EXPECT_EQ(engine_->submit(request({}, 1), collector.sink()).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->submit(request({1}, 64), collector.sink()).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->submit(request({kVocab}, 1), collector.sink()).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->submit(request({-1}, 1), collector.sink()).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_TRUE(engine_->submit(request({1}, 63), collector.sink()).ok());
  collector.wait();
}

TEST_F(ServingEngineTest, TheQueueIsBoundedAndCancellingFreesIt) {
  start();
  backend_->hold(true);
  std::vector<std::unique_ptr<Collector>> collectors;
  std::vector<uint64_t> handles;
  for (int i = 0; i < 7; ++i) {
    collectors.push_back(std::make_unique<Collector>());
    const auto handle = engine_->submit(request({1, 2, 3}, 20), collectors.back()->sink());
    ASSERT_TRUE(handle.ok());
    handles.push_back(*handle);
  }
  EXPECT_TRUE(engine_->is_full(1));
  Collector rejected;
  EXPECT_EQ(engine_->submit(request({1}, 1), rejected.sink()).status().code(),
            StatusCode::kResourceExhausted);
  for (const uint64_t handle : handles) engine_->cancel(handle);
  backend_->hold(false);
  const Deadline deadline = Deadline::after(std::chrono::seconds(20));
  while (engine_->is_full(7) && !deadline.has_passed()) std::this_thread::yield();
  EXPECT_FALSE(engine_->is_full(7));
  expect_blocks(0);
}

TEST_F(ServingEngineTest, ALostWorkerEndsRunningRequestsAndKeepsQueuedOnes) {
  start();
  backend_->hold(true);
  Collector running;
  ASSERT_TRUE(engine_->submit(request({9, 2, 3}, 5), running.sink()).ok());
  backend_->wait_until_inside_step();
  std::vector<std::unique_ptr<Collector>> queued;
  for (int i = 0; i < 5; ++i) {
    queued.push_back(std::make_unique<Collector>());
    ASSERT_TRUE(engine_->submit(request({i, 2, 3}, 5), queued.back()->sink()).ok());
  }
  backend_->fail_next();
  backend_->hold(false);
  running.wait();
  EXPECT_EQ(running.failure().code(), StatusCode::kUnavailable);
  EXPECT_EQ(running.failure().message(), "attention worker 7 was lost");
  for (size_t i = 0; i < queued.size(); ++i) {
    queued[i]->wait();
    EXPECT_EQ(queued[i]->ids(), expected({static_cast<int32_t>(i), 2, 3}, 5));
  }
  expect_blocks(0);
  EXPECT_TRUE(engine_->health().ok());
}

TEST_F(ServingEngineTest, ARebalanceLosesNoToken) {
  start();
  Collector collector;
  ASSERT_TRUE(engine_->submit(request({1, 2, 3}, 50), collector.sink()).ok());
  collector.wait_for_tokens(3);
  backend_->raise(BackendEvent::kRebalance);
  collector.wait();
  EXPECT_EQ(collector.ids(), expected({1, 2, 3}, 50));
}

TEST_F(ServingEngineTest, IsUnhealthyWithoutWorkersAndRecovers) {
  start();
  backend_->set_out(true);
  backend_->raise(BackendEvent::kLost);
  const Deadline deadline = Deadline::after(std::chrono::seconds(20));
  // First the loss itself is what is wrong, then that no other session can be had.
  const auto has_nobody = [&] { return engine_->health().message() == "nobody is up"; };
  while (!has_nobody() && !deadline.has_passed()) std::this_thread::yield();
  EXPECT_TRUE(has_nobody()) << engine_->health().message();
  Collector collector;
  EXPECT_EQ(engine_->submit(request({1}, 1), collector.sink()).status().code(),
            StatusCode::kUnavailable);
  backend_->set_out(false);
  while (!engine_->health().ok() && !deadline.has_passed()) std::this_thread::yield();
  ASSERT_TRUE(engine_->submit(request({1}, 3), collector.sink()).ok());
  collector.wait();
  EXPECT_EQ(collector.ids(), expected({1}, 3));
}

TEST_F(ServingEngineTest, ShutdownFinishesWhatRunsUntilTheDeadline) {
  start();
  Collector fast;
  ASSERT_TRUE(engine_->submit(request({1}, 5), fast.sink()).ok());
  engine_->shutdown(Deadline::after(std::chrono::seconds(20)));
  EXPECT_EQ(fast.ids(), expected({1}, 5));
  Collector late;
  EXPECT_EQ(engine_->submit(request({1}, 5), late.sink()).status().code(),
            StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lamina
