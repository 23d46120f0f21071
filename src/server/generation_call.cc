#include "server/generation_call.h"

#include <mutex>
#include <utility>

namespace lamina::server {

namespace {

// About what an event takes in memory: bounds need no exact figure.
size_t size_bytes(const GenerationEvent& event) {
  size_t size = sizeof(CallEvent);
  const auto add_tokens = [&size](const std::vector<ScoredToken>& tokens) {
    for (const ScoredToken& token : tokens) {
      size += sizeof(token) + token.top_logprobs.size() * sizeof(TokenLogprob);
    }
  };
  if (const auto* delta = std::get_if<GenerationDelta>(&event)) {
    size += delta->text.size();
    add_tokens(delta->tokens);
  } else if (const auto* scores = std::get_if<PromptScores>(&event)) {
    add_tokens(scores->tokens);
  }
  return size;
}

}  // namespace

struct GenerationCall::Mailbox {
  std::mutex mutex;
  std::function<void()> notify;  // empty once cancelled
  std::vector<CallEvent> events;
  size_t backlog_bytes = 0;
  size_t max_backlog_bytes = 0;
  bool overflowed = false;

  void push(int32_t prompt_idx, GenerationEvent event) {
    const TimePoint now = steady_clock().now();
    const size_t bytes = size_bytes(event);
    // One event is always taken in: prompt scores of a long prompt may exceed the bound alone.
    const std::lock_guard lock(mutex);
    if (!notify || overflowed) return;
    if (!events.empty() && backlog_bytes + bytes > max_backlog_bytes) {
      overflowed = true;
      notify();
      return;
    }
    backlog_bytes += bytes;
    events.push_back({prompt_idx, now, std::move(event)});
    if (events.size() == 1) notify();
  }
};

GenerationCall::GenerationCall(Engine& engine,
                               std::function<void()> notify,
                               size_t max_backlog_bytes)
    : engine_(engine), mailbox_(std::make_shared<Mailbox>()) {
  mailbox_->notify = std::move(notify);
  mailbox_->max_backlog_bytes = max_backlog_bytes;
}

GenerationCall::~GenerationCall() {
  cancel();
}

Status GenerationCall::submit(std::vector<GenerationRequest> requests) {
  int32_t prompt_idx = 0;
  for (GenerationRequest& request : requests) {
    const auto sink = [mailbox = mailbox_, prompt_idx](GenerationEvent event) {
      mailbox->push(prompt_idx, std::move(event));
    };
    const Result<uint64_t> handle = engine_.submit(std::move(request), sink);
    if (!handle.ok()) {
      cancel();
      return handle.status();
    }
    handles_.push_back(*handle);
    ++prompt_idx;
  }
  return {};
}

std::vector<CallEvent> GenerationCall::take() {
  const std::lock_guard lock(mailbox_->mutex);
  mailbox_->backlog_bytes = 0;
  return std::exchange(mailbox_->events, {});
}

bool GenerationCall::overflowed() const {
  const std::lock_guard lock(mailbox_->mutex);
  return mailbox_->overflowed;
}

void GenerationCall::cancel() {
  {
    const std::lock_guard lock(mailbox_->mutex);
    mailbox_->notify = nullptr;
    mailbox_->events.clear();
  }
  for (const uint64_t handle : std::exchange(handles_, {})) engine_.cancel(handle);
}

}  // namespace lamina::server
