#include "simulate/sim_engine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/check.h"

namespace lamina::simulate {
namespace {

// The prefix up to and with the token that ends the request.
std::vector<int32_t> until_stop(std::vector<int32_t> tokens, std::optional<int32_t> stop_token) {
  if (!stop_token) return tokens;
  const auto found = std::find(tokens.begin(), tokens.end(), *stop_token);
  if (found != tokens.end()) tokens.erase(found + 1, tokens.end());
  return tokens;
}

SchedulerConfig scheduler_config(const Scenario& scenario, const BlockLanes& lanes) {
  return {.blocks = lanes,
          .block_size = scenario.block_size,
          .num_micro_batches = scenario.rotation.num_micro_batches,
          .max_num_seqs = scenario.max_num_seqs,
          .max_num_batched_tokens = scenario.max_num_batched_tokens,
          .max_logits_rows = scenario.max_num_seqs + 1};
}

}  // namespace

SimEngine::SimEngine(const World& world, SimHost& host)
    : Process(host),
      world_(world),
      jobs_(world.scenario->requests.size()),
      under_way_(static_cast<size_t>(world.scenario->rotation.num_micro_batches)),
      num_active_(world.scenario->rotation.num_micro_batches) {
  for (size_t i = 0; i < jobs_.size(); ++i) jobs_[i].spec = &world.scenario->requests[i];
}

SimEngine::~SimEngine() = default;

Result<bool> SimEngine::step() {
  bool did = take_commands();
  did |= ensure_session();
  LAMINA_ASSIGN_OR_RETURN(const bool started, start_steps());
  did |= started;
  LAMINA_ASSIGN_OR_RETURN(const bool finished, finish_step());
  LAMINA_RETURN_IF_ERROR(check_blocks());
  LAMINA_RETURN_IF_ERROR(check_records());
  return did || finished;
}

void SimEngine::add_awaited(std::vector<AwaitedMessage>& awaited) const {
  if (session_ != nullptr) session_->pipeline().add_awaited(awaited);
}

TimePoint SimEngine::next_timer() const {
  TimePoint next = rebalance_at_;
  const std::vector<ActiveChange>& changes = world_.scenario->active_changes;
  if (next_change_ < changes.size()) next = std::min(next, TimePoint(changes[next_change_].after));
  for (const Job& job : jobs_) {
    if (job.has_ended) continue;
    if (!job.has_arrived) next = std::min(next, TimePoint(job.spec->arrives_after));
    if (job.spec->cancelled_after) next = std::min(next, TimePoint(*job.spec->cancelled_after));
  }
  return next;
}

void SimEngine::log(const std::string& line) const {
  world_.loop->log(fmt::format("{}: {}", simulate::to_text(host().now()), line));
}

// ---- requests ----

bool SimEngine::take_commands() {
  if (next_timer() > host().now()) return false;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    Job& job = jobs_[i];
    if (job.has_ended) continue;
    if (!job.has_arrived && TimePoint(job.spec->arrives_after) <= host().now()) arrive(job, i);
    const std::optional<Duration> cancelled = job.spec->cancelled_after;
    if (cancelled && TimePoint(*cancelled) <= host().now()) cancel(job);
  }
  change_active();
  return true;
}

void SimEngine::change_active() {
  const std::vector<ActiveChange>& changes = world_.scenario->active_changes;
  while (next_change_ < changes.size() && TimePoint(changes[next_change_].after) <= host().now()) {
    num_active_ = changes[next_change_++].num_micro_batches;
    num_changes_ += has_step_under_way() ? 1 : 0;
    if (scheduler_ == nullptr) ensure_session();
    scheduler_->set_active(num_active_);
    log(fmt::format("{} micro-batches are active", num_active_));
  }
}

void SimEngine::arrive(Job& job, uint64_t id) {
  const RequestSpec& spec = *job.spec;
  job.has_arrived = true;
  job.expected =
      until_stop(world_.model->continuation(spec.prompt, spec.max_tokens), spec.stop_token);
  job.sequence = std::make_unique<Sequence>();
  Sequence& sequence = *job.sequence;
  sequence.id = id;
  sequence.tokens = spec.prompt;
  sequence.num_prompt_tokens = static_cast<int32_t>(spec.prompt.size());
  sequence.max_total_tokens = sequence.num_prompt_tokens + spec.max_tokens;
  sequence.sampling.temperature = 0;
  job_of_[&sequence] = &job;
  if (scheduler_ == nullptr) ensure_session();
  scheduler_->add(&sequence);
  if (world_.loop->is_logging()) {
    log(fmt::format("request {} of {} tokens arrives, expects {}",
                    id,
                    spec.prompt.size(),
                    fmt::join(job.expected, " ")));
  }
}

void SimEngine::cancel(Job& job) {
  log("a request is cancelled");
  end(job);
}

void SimEngine::end(Job& job) {
  job.has_ended = true;
  if (job.sequence == nullptr) return;
  const Sequence& sequence = *job.sequence;
  if (sequence.is_in_step) {
    leftovers_.push_back({sequence.micro_batch, static_cast<int32_t>(sequence.blocks.size())});
  }
  scheduler_->remove(job.sequence.get());
  job_of_.erase(job.sequence.get());
  job.sequence.reset();  // whoever still looks at it is wrong
}

bool SimEngine::is_done() const {
  const auto has_ended = [](const Job& job) { return job.has_ended; };
  return std::all_of(jobs_.begin(), jobs_.end(), has_ended) && !has_step_under_way();
}

// ---- sessions ----

const SessionSpec& SimEngine::session_spec(uint64_t epoch) const {
  const std::vector<SessionSpec>& sessions = world_.scenario->sessions;
  return sessions[std::min<size_t>(epoch, sessions.size()) - 1];
}

Replay& SimEngine::add_replay() {
  const std::optional<StaleMessage>& stale = session_spec(epoch_).stale_message;
  Replay replay;
  replay.keeps_sent = session_spec(epoch_ + 1).stale_message.has_value();
  if (stale && !replays_.empty()) {
    replay.old = &replays_.back().sent;
    replay.from = host().now() + stale->after;
    replay.kind = stale->kind;
  }
  return replays_.emplace_back(std::move(replay));
}

bool SimEngine::ensure_session() {
  if (host().now() >= rebalance_at_) close_session("the workers changed");
  if (session_ != nullptr) return false;
  if (epoch_ > 0) host().compute(world_.scenario->reopening);
  ++epoch_;
  const SessionSpec& spec = session_spec(epoch_);
  const bool keeps_work = epoch_ == 1 && world_.scenario->keeps_work;
  records_.emplace_back(world_.scenario->rotation, world_.scenario->model.num_layers, keeps_work);
  session_ = std::make_unique<Session>(world_, spec, epoch_, host(), records_.back(), add_replay());
  if (spec.rebalanced_after) rebalance_at_ = host().now() + *spec.rebalanced_after;
  const BlockLanes& lanes = session_->planned().lanes;
  if (scheduler_ == nullptr) {
    scheduler_ = std::make_unique<Scheduler>(scheduler_config(*world_.scenario, lanes));
  } else {
    scheduler_->preempt_all();
    scheduler_->resize(lanes);
  }
  if (world_.loop->is_logging()) {
    log(fmt::format("session {}: {}", epoch_, session_->planned().partition.to_string()));
  }
  return true;
}

// Its steps under way count for nothing.
void SimEngine::close_session(const std::string& why) {
  if (world_.loop->is_logging()) log(fmt::format("session {} ends: {}", epoch_, why));
  under_way_.assign(under_way_.size(), std::nullopt);
  leftovers_.clear();
  scheduler_->preempt_all();
  session_.reset();
  rebalance_at_ = TimePoint::max();
}

// ---- steps ----

bool SimEngine::has_step_under_way() const {
  return std::any_of(
      under_way_.begin(), under_way_.end(), [](const auto& plan) { return plan.has_value(); });
}

Result<bool> SimEngine::start_steps() {
  bool did = false;
  scheduler_->share_out();
  for (size_t i = 0; i < under_way_.size(); ++i) {
    if (under_way_[i]) continue;
    StepPlan plan = scheduler_->schedule(static_cast<int32_t>(i));
    if (plan.empty()) continue;
    if (static_cast<int32_t>(i) >= num_active_) {
      return internal_error(
          fmt::format("micro-batch {} of {} active ones has a step", i, num_active_));
    }
    did = true;
    host().compute(world_.scenario->engine_step);
    under_way_[i] = plan;
    const Status started = session_->pipeline().start(static_cast<int32_t>(i), std::move(plan));
    if (started.ok()) continue;
    close_session(started.message());
    return true;
  }
  return did;
}

Result<bool> SimEngine::finish_step() {
  if (session_ == nullptr) return true;  // lost a moment ago
  const Result<std::optional<FinishedStep>> finished = session_->pipeline().poll();
  if (!finished.ok()) {
    close_session(finished.status().message());
    return true;
  }
  if (!*finished) return false;
  LAMINA_RETURN_IF_ERROR(apply(**finished));
  return true;
}

Status SimEngine::apply(const FinishedStep& finished) {
  ++num_steps_;
  const auto idx = static_cast<size_t>(finished.micro_batch);
  LAMINA_CHECK(under_way_[idx].has_value());
  // It stood in the place of one that the step needed: somebody took it.
  const std::optional<wire::MessageHeader>& stale = replays_.back().replayed;
  if (stale && stale->micro_batch == static_cast<uint32_t>(finished.micro_batch)) {
    return internal_error(fmt::format("a step ended with a message of epoch {}", stale->epoch));
  }
  const StepPlan plan = *std::exchange(under_way_[idx], std::nullopt);
  scheduler_->complete(finished.micro_batch, plan, finished.outputs);
  std::erase_if(leftovers_,
                [&](const Leftover& left) { return left.micro_batch == finished.micro_batch; });
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    LAMINA_RETURN_IF_ERROR(deliver(plan.sequences[i], finished.outputs[i]));
  }
  return {};
}

Status SimEngine::deliver(const SequenceStep& step, const SequenceOutput& output) {
  Sequence* sequence = scheduler_->in_slot(step.slot);
  if (sequence == nullptr) return {};  // its request was cancelled
  Job& job = *job_of_.at(sequence);
  if (output.failed) return internal_error("a sequence failed");
  if (output.sampled) {
    ++num_tokens_;
    const auto position = static_cast<size_t>(sequence->num_generated()) - 1;
    if (position >= job.expected.size() || sequence->tokens.back() != job.expected[position]) {
      return internal_error(fmt::format("request {}: token {} is {}, expected {} of {}",
                                        sequence->id,
                                        position,
                                        sequence->tokens.back(),
                                        fmt::join(job.expected, " "),
                                        job.expected.size()));
    }
    if (sequence->is_complete() || sequence->tokens.back() == job.spec->stop_token) {
      if (position + 1 != job.expected.size()) return internal_error("a request ended too soon");
      end(job);
    }
  } else if (sequence->is_complete()) {  // max_tokens = 0
    if (!job.expected.empty()) return internal_error("a request ended without its tokens");
    end(job);
  }
  return {};
}

// ---- what must hold ----

Status SimEngine::check_blocks() const {
  if (scheduler_ == nullptr) return {};
  int32_t held = 0;
  for (const Sequence* sequence : scheduler_->running()) {
    held += static_cast<int32_t>(sequence->blocks.size());
  }
  for (const Leftover& leftover : leftovers_) held += leftover.num_blocks;
  const BlockAllocator& blocks = scheduler_->blocks();
  if (held == blocks.num_used()) return {};
  return internal_error(fmt::format("{} blocks are held, {} are in use", held, blocks.num_used()));
}

Status SimEngine::check_records() const {
  for (const PipelineRecord& record : records_) {
    if (!record.violation().empty()) return internal_error(record.violation());
  }
  return {};
}

Status SimEngine::check_end() const {
  LAMINA_RETURN_IF_ERROR(check_records());
  if (scheduler_ == nullptr || scheduler_->blocks().num_used() == 0) return {};
  return internal_error(
      fmt::format("{} blocks are never given back", scheduler_->blocks().num_used()));
}

std::string SimEngine::to_string() const {
  std::string text = fmt::format("session {}, {} steps", epoch_, num_steps_);
  for (size_t i = 0; i < under_way_.size(); ++i) {
    if (under_way_[i]) text += fmt::format("; a step of micro-batch {} is under way", i);
  }
  if (scheduler_ == nullptr) return text;
  const BlockAllocator& blocks = scheduler_->blocks();
  text += fmt::format("; {} blocks of {} in use", blocks.num_used(), blocks.num_blocks());
  for (const Job& job : jobs_) {
    if (job.sequence == nullptr) continue;
    const Sequence& sequence = *job.sequence;
    text += fmt::format("\n  request {}: {} of {} tokens, {} cached, {} blocks, {}{}{}",
                        sequence.id,
                        sequence.num_tokens(),
                        sequence.max_total_tokens,
                        sequence.num_cached_tokens,
                        sequence.blocks.size(),
                        sequence.state == SequenceState::kRunning
                            ? fmt::format("runs in micro-batch {}", sequence.micro_batch)
                            : "waits",
                        sequence.is_in_step ? ", in a step" : "",
                        sequence.is_starved ? ", starved" : "");
  }
  return text;
}

}  // namespace lamina::simulate
