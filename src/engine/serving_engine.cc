#include "engine/serving_engine.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/error.h"
#include "base/log.h"
#include "worker/step_codec.h"

namespace lamina {
namespace {

constexpr Duration kIdleWait = std::chrono::seconds(1);
constexpr Duration kReopenPause = std::chrono::milliseconds(100);
constexpr Duration kPipelineInterval = std::chrono::milliseconds(500);  // of busy time
constexpr Duration kReportInterval = std::chrono::seconds(10);
constexpr Duration kPublishInterval = std::chrono::milliseconds(50);  // while steps run

// What a step's message has room for.
Status validate_lists(const GenerationRequest& request, size_t num_eos_ids) {
  const SamplingParams& sampling = request.sampling;
  if (sampling.logit_bias.size() > kMaxLogitBias) {
    return invalid_argument(
        fmt::format("{} logit biases, limit {}", sampling.logit_bias.size(), kMaxLogitBias));
  }
  if (request.stop_ids.size() + num_eos_ids > kMaxForbiddenIds) {
    return invalid_argument(fmt::format("{} stop token ids and {} of the model, limit {}",
                                        request.stop_ids.size(),
                                        num_eos_ids,
                                        kMaxForbiddenIds));
  }
  if (sampling.num_logprobs <= static_cast<int32_t>(kMaxTopLogprobs)) return {};
  return invalid_argument(fmt::format(
      "{} log-probabilities of a token, limit {}", sampling.num_logprobs, kMaxTopLogprobs));
}

double seconds_of(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

ServingEngine::ServingEngine(ServingEngineConfig config,
                             std::unique_ptr<StepBackend> backend,
                             const Tokenizer* tokenizer)
    : config_(std::move(config)),
      backend_(std::move(backend)),
      tokenizer_(tokenizer),
      min_blocks_(ceil_div(config_.max_model_len, config_.scheduler.block_size)),
      pipeline_(config_.pipeline) {
  config_.scheduler.blocks = backend_->open_session(min_blocks_).value_or_throw();
  scheduler_ = std::make_unique<Scheduler>(config_.scheduler);
  scheduler_->set_active(pipeline_.num_active());
  under_way_.resize(static_cast<size_t>(config_.scheduler.num_micro_batches));
  is_up_ = true;
  publish_stats();
  backend_->on_event([this] {
    const std::lock_guard lock(mutex_);
    notify();
  });
  thread_ = std::thread([this] { loop(); });
}

ServingEngine::~ServingEngine() {
  shutdown(Deadline::expired());
}

// ---- any thread ----

Status ServingEngine::validate(const GenerationRequest& request) const {
  if (request.prompt_ids.empty()) return invalid_argument("the prompt is empty");
  if (request.n < 1) return invalid_argument("n must be at least 1");
  if (request.max_tokens < 0) return invalid_argument("max_tokens must not be negative");
  const auto num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  if (num_prompt + request.max_tokens > config_.max_model_len) {
    return invalid_argument(fmt::format(
        "this model's maximum context length is {} tokens; the prompt has {} and {} were asked for",
        config_.max_model_len,
        num_prompt,
        request.max_tokens));
  }
  for (const int32_t id : request.prompt_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      return invalid_argument(
          fmt::format("prompt token id {} is outside [0, {})", id, config_.vocab_size));
    }
  }
  for (const int32_t id : request.stop_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      return invalid_argument(
          fmt::format("stop token id {} is outside [0, {})", id, config_.vocab_size));
    }
  }
  LAMINA_RETURN_IF_ERROR(validate_lists(request, config_.eos_ids.size()));
  return request.sampling.validate(config_.vocab_size);
}

Result<uint64_t> ServingEngine::submit(GenerationRequest request, EventSink sink) {
  LAMINA_RETURN_IF_ERROR(validate(request));
  if (is_draining_) return unavailable("the server is shutting down");
  if (!is_up_) return unavailable("no attention worker is available; retry later");
  const int32_t n = request.n;
  if (num_unfinished_.fetch_add(n) + n >
      config_.scheduler.max_num_seqs + config_.max_queued_sequences) {
    num_unfinished_ -= n;
    return resource_exhausted("the request queue is full; retry later");
  }
  auto job = std::make_unique<Job>();
  job->handle = next_handle_++;
  job->request = std::move(request);
  job->sink = std::move(sink);
  const uint64_t handle = job->handle;
  const std::lock_guard lock(mutex_);
  if (should_stop_) {  // the engine's thread may have looked into the inbox for the last time
    num_unfinished_ -= n;
    return unavailable("the server is shutting down");
  }
  inbox_.push_back(std::move(job));
  notify();
  return handle;
}

// Wakes the engine's thread, which sleeps here or, with a step under way, in the backend. With
// mutex_ held.
void ServingEngine::notify() {
  has_news_ = true;
  wake_.notify_one();
  backend_->interrupt();
}

void ServingEngine::cancel(uint64_t handle) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back(handle);
  notify();
}

bool ServingEngine::is_full(int32_t num_sequences) const {
  return num_unfinished_ + num_sequences >
         config_.scheduler.max_num_seqs + config_.max_queued_sequences;
}

Status ServingEngine::health() const {
  if (is_draining_) return unavailable("shutting down");
  if (!is_up_) {
    const std::lock_guard lock(mutex_);
    return down_reason_.ok() ? unavailable("no attention worker is available") : down_reason_;
  }
  const Duration age = steady_clock().now().time_since_epoch() - Duration(last_progress_ns_.load());
  if (is_busy_ && age > config_.stall_limit) {
    return unavailable(fmt::format("no step has ended for {:.0f} s", seconds_of(age)));
  }
  return {};
}

EngineStats ServingEngine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  if (is_busy_) {
    stats.seconds_since_progress =
        seconds_of(steady_clock().now().time_since_epoch() - Duration(last_progress_ns_.load()));
  }
  return stats;
}

void ServingEngine::shutdown(Deadline deadline) {
  is_draining_ = true;
  if (!thread_.joinable()) return;
  {
    std::unique_lock lock(mutex_);
    while (num_unfinished_ > 0 && !deadline.has_passed()) {
      wake_.wait_for(lock, std::min<Duration>(deadline.remaining(), std::chrono::milliseconds(20)));
    }
    should_stop_ = true;
    notify();
    wake_.notify_all();
  }
  thread_.join();
  backend_->close();
}

// ---- the engine's thread ----

void ServingEngine::loop() {
  while (!should_stop_) {
    take_commands();
    if (!ensure_session()) {
      publish_stats();
      wait_for_work(kReopenPause);
      continue;
    }
    start_steps();
    is_busy_ = has_step_under_way();
    note_busy(is_busy_);
    if (is_busy_) {
      finish_step();
    } else {
      publish_stats();
      wait_for_work(kIdleWait);
    }
  }
  take_commands();
  fail_all(unavailable("the server is shutting down"));
  publish_stats();
}

void ServingEngine::take_commands() {
  std::vector<std::unique_ptr<Job>> arrived;
  std::vector<uint64_t> cancelled;
  {
    const std::lock_guard lock(mutex_);
    arrived.swap(inbox_);
    cancelled.swap(cancelled_);
    has_news_ = false;
  }
  for (std::unique_ptr<Job>& job : arrived) start(std::move(job));
  for (const uint64_t handle : cancelled) end_job(handle);
}

void ServingEngine::start(std::unique_ptr<Job> job) {
  const GenerationRequest& request = job->request;
  for (int32_t i = 0; i < request.n; ++i) {
    auto choice =
        std::make_unique<Choice>(Choice{.job = job.get(),
                                        .idx = i,
                                        .sequence = make_sequence(request, i),
                                        .text = ChoiceText(tokenizer_, request, config_.eos_ids)});
    choices_[&choice->sequence] = choice.get();
    // The prompt is scored by the first choice, and its scores come before any text: the others
    // wait for them.
    if (i == 0 || !request.prompt_logprobs) scheduler_->add(&choice->sequence);
    job->choices.push_back(std::move(choice));
  }
  counters_.num_prompt_tokens += request.prompt_ids.size();
  jobs_[job->handle] = std::move(job);
}

Sequence ServingEngine::make_sequence(const GenerationRequest& request, int32_t choice_idx) {
  Sequence sequence;
  sequence.id = next_sequence_id_++;
  sequence.tokens = request.prompt_ids;
  sequence.num_prompt_tokens = static_cast<int32_t>(request.prompt_ids.size());
  sequence.max_total_tokens = sequence.num_prompt_tokens + request.max_tokens;
  sequence.sampling = request.sampling;
  sequence.sampling.seed += static_cast<uint64_t>(choice_idx);
  sequence.sampling.min_tokens = request.min_tokens;
  sequence.sampling.forbidden_ids = request.stop_ids;
  auto& forbidden = sequence.sampling.forbidden_ids;
  forbidden.insert(forbidden.end(), config_.eos_ids.begin(), config_.eos_ids.end());
  sequence.wants_prompt_scores = request.prompt_logprobs && choice_idx == 0;
  return sequence;
}

// True if steps can be run.
bool ServingEngine::ensure_session() {
  switch (backend_->poll_event()) {
    case BackendEvent::kNone:
      break;
    case BackendEvent::kLost:
      fail_running(backend_->loss_reason());
      break;
    case BackendEvent::kRebalance:
      log_info("attention workers changed: {} running sequences are recomputed",
               scheduler_->running().size());
      scheduler_->preempt_all();
      return open_session();
  }
  return is_up_ || open_session();
}

bool ServingEngine::open_session() {
  under_way_.assign(under_way_.size(), std::nullopt);
  const Result<BlockLanes> blocks = backend_->open_session(min_blocks_);
  if (blocks.ok()) {
    scheduler_->preempt_all();
    scheduler_->resize(*blocks);
    is_up_ = true;
    return true;
  }
  if (is_up_.exchange(false)) down_since_ = steady_clock().now();
  {
    const std::lock_guard lock(mutex_);
    down_reason_ = blocks.status();
  }
  if (steady_clock().now() - down_since_ > config_.outage_limit) fail_all(blocks.status());
  return false;
}

bool ServingEngine::has_step_under_way() const {
  return std::any_of(
      under_way_.begin(), under_way_.end(), [](const auto& plan) { return plan.has_value(); });
}

// A step of each micro-batch that has none under way and something to do. What is thrown for want
// of memory, here and in finish_step(), must not end the thread.
void ServingEngine::start_steps() try {
  scheduler_->share_out();
  for (int32_t i = 0; i < static_cast<int32_t>(under_way_.size()); ++i) {
    std::optional<StepUnderWay>& step = under_way_[static_cast<size_t>(i)];
    if (step) continue;
    StepPlan next = scheduler_->schedule(i);
    if (next.empty()) continue;
    const TimePoint now = steady_clock().now();
    if (!has_step_under_way()) last_progress_ns_ = now.time_since_epoch().count();
    step = {next, now};
    const Status started = backend_->start(i, std::move(next));
    if (!started.ok()) return fail_running(started);
  }
} catch (const std::exception& error) {
  fail_running(internal_error(error.what()));
}

// Waits for a step to end, or for news. What was started is on its way before stats are published.
void ServingEngine::finish_step() try {
  const bool is_time = steady_clock().now() - last_publish_ > kPublishInterval;
  Result<std::optional<FinishedStep>> finished =
      backend_->wait(is_time ? Deadline::expired() : Deadline::after(kPublishInterval));
  if (is_time) publish_stats();
  if (!finished.ok()) return fail_running(finished.status());
  if (*finished) apply(**finished);
} catch (const std::exception& error) {
  fail_running(internal_error(error.what()));
}

// Adds up the time with a step under way.
void ServingEngine::note_busy(bool is_busy) {
  const TimePoint now = steady_clock().now();
  if (last_step_event_ != TimePoint()) busy_time_ += now - last_step_event_;
  last_step_event_ = is_busy ? now : TimePoint();
  if (busy_time_ >= kPipelineInterval) update_pipeline();
}

void ServingEngine::update_pipeline() {
  const std::vector<Scheduler::Load> loads = scheduler_->loads();
  PipelineController::Pool pool;
  for (const EngineStats::Worker& worker : backend_->workers()) {
    if (worker.state != "up") continue;
    ++pool.num_workers;
    pool.kv_bytes_per_s += worker.kv_bytes_per_second;
  }
  pipeline_.update(backend_->take_sample(), std::exchange(busy_time_, Duration()), loads, pool);
  scheduler_->set_active(pipeline_.num_active());
  const TimePoint now = steady_clock().now();
  if (pipeline_.stats().step_seconds == 0 || now - last_report_ < kReportInterval) return;
  last_report_ = now;
  log_info("{}", pipeline_.report());
}

void ServingEngine::apply(FinishedStep& finished) {
  const TimePoint now = steady_clock().now();
  last_progress_ns_ = now.time_since_epoch().count();
  ++counters_.num_steps;
  const StepUnderWay step =
      *std::exchange(under_way_[static_cast<size_t>(finished.micro_batch)], std::nullopt);
  const StepPlan& plan = step.plan;
  if (plan.is_decoding()) pipeline_.add_step(now - step.begin);
  scheduler_->complete(finished.micro_batch, plan, finished.outputs);
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    deliver(plan.sequences[i], finished.outputs[i]);
  }
}

void ServingEngine::deliver(const SequenceStep& step, SequenceOutput& output) {
  Sequence* sequence = scheduler_->in_slot(step.slot);
  if (sequence == nullptr) return;  // its request failed with another choice of this step
  Choice& choice = *choices_.at(sequence);
  if (output.failed) {
    fail_job(choice.job->handle,
             internal_error(
                 "no token can be sampled: every one is forbidden, or the logits are not numbers"));
    return;
  }
  if (sequence->wants_prompt_scores) deliver_prompt_scores(choice, output);
  if (output.sampled) {
    ++counters_.num_generated_tokens;
    GenerationDelta delta = choice.text.add(output.token, sequence->is_complete());
    delta.choice_idx = choice.idx;
    const bool is_last = delta.finish_reason.has_value();
    choice.job->sink(std::move(delta));
    if (is_last) finish_choice(choice);
  } else if (sequence->is_complete()) {  // max_tokens = 0
    GenerationDelta delta;
    delta.choice_idx = choice.idx;
    delta.finish_reason = FinishReason::kLength;
    choice.job->sink(std::move(delta));
    finish_choice(choice);
  }
}

// Scores come in chunks, with the prefill; they are handed on once, whole. Then the request's other
// choices start.
void ServingEngine::deliver_prompt_scores(Choice& choice, SequenceOutput& output) {
  std::vector<ScoredToken>& tokens = choice.prompt_scores.tokens;
  tokens.insert(tokens.end(), output.prompt_scores.begin(), output.prompt_scores.end());
  if (choice.has_sent_scores || choice.sequence.num_scored < choice.sequence.num_prompt_tokens - 1)
    return;
  choice.has_sent_scores = true;
  choice.job->sink(std::move(choice.prompt_scores));
  for (const std::unique_ptr<Choice>& other : choice.job->choices) {
    if (other->idx > 0) scheduler_->add(&other->sequence);
  }
}

void ServingEngine::finish_choice(Choice& choice) {
  choice.is_finished = true;
  scheduler_->remove(&choice.sequence);
  const auto& choices = choice.job->choices;
  if (std::all_of(
          choices.begin(), choices.end(), [](const auto& other) { return other->is_finished; })) {
    end_job(choice.job->handle);
  }
}

void ServingEngine::end_job(uint64_t handle) {
  const auto found = jobs_.find(handle);
  if (found == jobs_.end()) return;
  for (const std::unique_ptr<Choice>& choice : found->second->choices) {
    scheduler_->remove(&choice->sequence);
    choices_.erase(&choice->sequence);
  }
  num_unfinished_ -= static_cast<int32_t>(found->second->choices.size());
  jobs_.erase(found);
}

void ServingEngine::fail_job(uint64_t handle, const Status& status) {
  const auto found = jobs_.find(handle);
  if (found == jobs_.end()) return;
  found->second->sink(GenerationFailure{status});
  end_job(handle);
}

// The workers lost the state of every slot: requests with a running sequence end in an error,
// queued ones stay.
void ServingEngine::fail_running(const Status& status) {
  under_way_.assign(under_way_.size(), std::nullopt);
  log_error("step failed: {}", status.to_string());
  std::vector<uint64_t> handles;
  for (const Sequence* sequence : scheduler_->running())
    handles.push_back(choices_.at(sequence)->job->handle);
  for (const uint64_t handle : handles) fail_job(handle, status);
  scheduler_->preempt_all();
  if (is_up_.exchange(false)) down_since_ = steady_clock().now();
  const std::lock_guard lock(mutex_);
  down_reason_ = status;
}

void ServingEngine::fail_all(const Status& status) {
  while (!jobs_.empty()) fail_job(jobs_.begin()->first, status);
}

void ServingEngine::wait_for_work(Duration at_most) {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, at_most, [this] { return has_news_; });
}

void ServingEngine::publish_stats() {
  last_publish_ = steady_clock().now();
  EngineStats stats = counters_;
  stats.num_running = static_cast<int32_t>(scheduler_->running().size());
  stats.num_waiting = static_cast<int32_t>(scheduler_->waiting().size());
  stats.num_blocks = scheduler_->blocks().num_blocks();
  stats.num_blocks_used = scheduler_->blocks().num_used();
  stats.num_preemptions = scheduler_->num_preemptions();
  stats.workers = backend_->workers();
  stats.pipeline = pipeline_.stats();
  const BackendTimes times = backend_->times();
  stats.model_seconds = times.model_seconds;
  stats.attention_wait_seconds = times.attention_wait_seconds;
  stats.host_seconds = times.host_seconds;
  const std::lock_guard lock(mutex_);
  stats_ = std::move(stats);
}

}  // namespace lamina
