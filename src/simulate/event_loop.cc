#include "simulate/event_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace lamina::simulate {
namespace {

// Takes in what has arrived, without a look at any message: nobody is done with one by that.
bool is_there(const AwaitedMessage& message) {
  constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();
  const PollResult result = message.endpoint->poll(message.slot, kNever);
  return result == PollResult::kDown || message.endpoint->received_seq(message.slot) >= message.seq;
}

}  // namespace

std::string to_text(TimePoint time) {
  return fmt::format("{:.3f} ms", static_cast<double>(time.time_since_epoch().count()) * 1e-6);
}

void EventLoop::add(std::unique_ptr<Process> process) {
  auto entry = std::make_unique<Entry>();
  entry->process = process.get();
  entry->owned = std::move(process);
  entries_.push_back(std::move(entry));
}

Status EventLoop::run(Process& engine, const std::function<bool()>& is_done) {
  entries_.push_back(std::make_unique<Entry>());
  entries_.back()->process = &engine;
  while (!is_done()) {
    Entry* next = nullptr;
    TimePoint due = TimePoint::max();
    for (const auto& entry : entries_) {
      const TimePoint at = due_time(*entry);
      if (at >= due) continue;
      due = at;
      next = entry.get();
    }
    if (next == nullptr) return failure("nothing will ever happen");
    if (due > limits_.end) return failure("too late");
    if (++num_steps_ > limits_.max_steps) return failure("too many steps");
    network_.advance_to(due);
    LAMINA_RETURN_IF_ERROR(run_step(*next));
    if (network_.num_violations() > 0) return failure(network_.first_violation());
  }
  return {};
}

TimePoint EventLoop::due_time(const Entry& entry) const {
  const SimHost& host = entry.process->host();
  if (entry.is_busy) return host.now();
  const TimePoint timer = std::max(entry.process->next_timer(), host.now());
  return std::min(timer, network_.next_event_time(host).value_or(TimePoint::max()));
}

Status EventLoop::run_step(Entry& entry) {
  Process& process = *entry.process;
  if (process.host().is_dead()) {
    end(entry, "was killed");
    return {};
  }
  network_.look(process.host());  // one that awaits nothing polls nothing
  const bool is_awake = entry.is_busy || is_woken(entry);
  // It sleeps on, as it would: what it is not told of may well be the loss of a session.
  if (!is_awake && entry.owned == nullptr) return {};
  const Result<bool> did = process.step();
  if (!did.ok()) {
    if (entry.owned == nullptr) return failure(did.status().message());
    end(entry, did.status().message());
    return {};
  }
  if (*did && !is_awake) {
    return failure(fmt::format("{} would have slept through it", process.host().name()));
  }
  if (!*did && would_spin(process)) {
    return failure(fmt::format("{} would spin", process.host().name()));
  }
  entry.is_busy = *did;
  return {};
}

void EventLoop::end(Entry& entry, const std::string& why) {
  if (is_logging()) {
    log(fmt::format("{}: {} ends: {}", to_text(network_.now()), entry.process->host().name(), why));
  }
  std::erase_if(entries_, [&](const auto& one) { return one.get() == &entry; });
}

bool EventLoop::is_woken(const Entry& entry) {
  if (entry.process->next_timer() <= entry.process->host().now()) return true;
  awaited_.clear();
  entry.process->add_awaited(awaited_);
  return std::any_of(awaited_.begin(), awaited_.end(), is_there);
}

bool EventLoop::would_spin(const Process& process) {
  awaited_.clear();
  process.add_awaited(awaited_);
  return std::any_of(awaited_.begin(), awaited_.end(), [](const AwaitedMessage& message) {
    return message.endpoint->received_seq(message.slot) >= message.seq;
  });
}

Status EventLoop::failure(const std::string& what) const {
  std::string text = fmt::format("at {}: {}", to_text(network_.now()), what);
  for (const auto& entry : entries_) {
    const SimHost& host = entry->process->host();
    text += fmt::format("\n  {} at {}{}{}",
                        host.name(),
                        to_text(host.now()),
                        entry->is_busy ? ", busy" : "",
                        host.is_dead() ? ", dead" : "");
    std::vector<AwaitedMessage> awaited;
    entry->process->add_awaited(awaited);
    for (const AwaitedMessage& message : awaited) {
      text += fmt::format("\n    awaits {} in slot {} from peer {}, has {}",
                          message.seq,
                          message.slot,
                          message.endpoint->peer().id,
                          message.endpoint->received_seq(message.slot));
    }
  }
  return internal_error(std::move(text));
}

}  // namespace lamina::simulate
