#include "server/fake_engine.h"

#include <chrono>

namespace lamina::server {

namespace {

constexpr auto kPatience = std::chrono::seconds(10);

ScoredToken make_token(const GenerationRequest& request, int32_t id) {
  ScoredToken token;
  token.id = id;
  token.logprob = -0.25F;
  for (int32_t i = 0; i < request.sampling.num_logprobs; ++i) {
    token.top_logprobs.push_back({id + i, -0.25F - static_cast<float>(i)});
  }
  return token;
}

bool is_lead(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
}

}  // namespace

std::vector<GenerationEvent> say(const GenerationRequest& request,
                                 int32_t choice_idx,
                                 const std::string& text,
                                 FinishReason reason) {
  std::vector<GenerationEvent> events;
  std::string pending;
  for (size_t i = 0; i < text.size(); ++i) {
    GenerationDelta delta;
    delta.choice_idx = choice_idx;
    delta.tokens.push_back(make_token(request, static_cast<unsigned char>(text[i])));
    pending += text[i];
    if (i + 1 == text.size() || is_lead(text[i + 1])) delta.text = std::exchange(pending, "");
    events.emplace_back(std::move(delta));
  }
  GenerationDelta end;
  end.choice_idx = choice_idx;
  end.finish_reason = reason;
  events.emplace_back(std::move(end));
  return events;
}

FakeEngine::Scripter saying(const std::string& text) {
  return [text](const GenerationRequest& request) {
    FakeEngine::Script script;
    if (request.prompt_logprobs) {
      PromptScores scores;
      for (size_t i = 1; i < request.prompt_ids.size(); ++i) {
        scores.tokens.push_back(make_token(request, request.prompt_ids[i]));
      }
      script.events.emplace_back(std::move(scores));
    }
    const auto limit = static_cast<size_t>(request.max_tokens);
    for (int32_t choice_idx = 0; choice_idx < request.n; ++choice_idx) {
      const FinishReason reason = text.size() > limit ? FinishReason::kLength : FinishReason::kStop;
      for (GenerationEvent& event : say(request, choice_idx, text.substr(0, limit), reason)) {
        script.events.push_back(std::move(event));
      }
    }
    return script;
  };
}

FakeEngine::Scripter endless() {
  return [](const GenerationRequest& request) {
    GenerationDelta delta;
    delta.text = "x";
    delta.tokens.push_back(make_token(request, 'x'));
    return FakeEngine::Script{{delta}, true};
  };
}

FakeEngine::FakeEngine(Scripter scripter)
    : scripter_(std::move(scripter)), thread_([this] { play(); }) {}

FakeEngine::~FakeEngine() {
  shutdown(Deadline::expired());
}

Result<uint64_t> FakeEngine::submit(GenerationRequest request, EventSink sink) {
  const std::lock_guard lock(mutex_);
  if (!submit_status_.ok()) return submit_status_;
  requests_.push_back(request);
  running_[++last_handle_] = {scripter_(request), std::move(sink), 0};
  changed_.notify_all();
  return last_handle_;
}

void FakeEngine::cancel(uint64_t handle) {
  const std::lock_guard lock(mutex_);
  num_cancels_ += running_.erase(handle);
  changed_.notify_all();
}

void FakeEngine::play() {
  std::unique_lock lock(mutex_);
  uint64_t turn = 0;
  while (true) {
    changed_.wait(lock, [&] { return is_stopped_ || (!running_.empty() && permits_ != 0); });
    if (is_stopped_) return;
    auto it = running_.upper_bound(turn);
    if (it == running_.end()) it = running_.begin();
    turn = it->first;
    Running& running = it->second;
    if (running.position < running.script.events.size()) {
      const EventSink sink = running.sink;
      GenerationEvent event = running.script.events[running.position];
      if (permits_ > 0) --permits_;
      const bool is_last = running.position + 1 == running.script.events.size();
      if (!is_last || !running.script.repeats_last) ++running.position;
      lock.unlock();
      sink(std::move(event));
      lock.lock();
    } else {
      running_.erase(it);
      changed_.notify_all();
    }
  }
}

bool FakeEngine::is_full(int32_t num_sequences) const {
  const std::lock_guard lock(mutex_);
  return num_sequences > room_;
}

Status FakeEngine::health() const {
  const std::lock_guard lock(mutex_);
  return health_;
}

EngineStats FakeEngine::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void FakeEngine::shutdown(Deadline) {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void FakeEngine::set_scripter(Scripter scripter) {
  const std::lock_guard lock(mutex_);
  scripter_ = std::move(scripter);
}

void FakeEngine::set_room(int32_t num_sequences) {
  const std::lock_guard lock(mutex_);
  room_ = num_sequences;
}

void FakeEngine::set_health(Status health) {
  const std::lock_guard lock(mutex_);
  health_ = std::move(health);
}

void FakeEngine::set_submit_status(Status status) {
  const std::lock_guard lock(mutex_);
  submit_status_ = std::move(status);
}

void FakeEngine::set_stats(EngineStats stats) {
  const std::lock_guard lock(mutex_);
  stats_ = std::move(stats);
}

void FakeEngine::set_permits(int64_t num_events) {
  const std::lock_guard lock(mutex_);
  permits_ = num_events;
  changed_.notify_all();
}

std::vector<GenerationRequest> FakeEngine::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

bool FakeEngine::wait_for_requests(size_t count) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return requests_.size() >= count; });
}

bool FakeEngine::wait_for_cancels(size_t count) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return num_cancels_ >= count; });
}

size_t FakeEngine::num_running() const {
  const std::lock_guard lock(mutex_);
  return running_.size();
}

}  // namespace lamina::server
