#include "control/worker_watch.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace lamina::control {
namespace {

// A heartbeat gets at least this long, however late it is sent: were this process itself stopped
// for a while, each worker would still have its chance to answer.
constexpr Duration kMinHeartbeatTimeout = std::chrono::milliseconds(250);

double to_seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

void WorkerMonitorConfig::validate() const {
  const Duration shortest = std::min(
      {heartbeat_interval, call_timeout, silence_limit, stuck_limit, min_backoff, max_backoff});
  if (shortest <= Duration::zero() || max_failures < 1 || min_backoff > max_backoff) {
    throw Error(
        StatusCode::kInvalidArgument,
        "worker monitor: intervals and limits must be positive, min_backoff <= max_backoff");
  }
}

std::string_view down_cause_name(DownCause cause) {
  switch (cause) {
    case DownCause::kUnreachable:
      return "unreachable";
    case DownCause::kSilent:
      return "silent";
    case DownCause::kRestarted:
      return "restarted";
    case DownCause::kSessionLost:
      return "session lost";
    case DownCause::kFailed:
      return "failed";
    case DownCause::kStuck:
      return "stuck";
  }
  return "unknown";
}

WorkerWatch::WorkerWatch(const WorkerMonitorConfig& config,
                         AttentionControl& worker,
                         const Clock& clock)
    : config_(config),
      worker_(worker),
      clock_(clock),
      next_tick_(clock.now()),
      backoff_(config.min_backoff) {}

void WorkerWatch::watch(uint64_t epoch, uint64_t incarnation) {
  const std::lock_guard lock(mutex_);
  ++generation_;
  epoch_ = epoch;
  incarnation_ = incarnation;
  num_failures_ = 0;
  last_success_ = next_tick_ = clock_.now();
  now_.state = WatchState::kWatched;
  now_.stats = {};
}

void WorkerWatch::unwatch() {
  const std::lock_guard lock(mutex_);
  ++generation_;
  become_unreachable();
}

Duration WorkerWatch::time_to_tick() const {
  const std::lock_guard lock(mutex_);
  return Deadline::at(next_tick_).remaining(clock_);
}

WorkerSnapshot WorkerWatch::snapshot() const {
  const std::lock_guard lock(mutex_);
  return now_;
}

std::optional<WorkerEvent> WorkerWatch::tick() {
  std::unique_lock lock(mutex_);
  if (clock_.now() < next_tick_) return std::nullopt;
  const uint64_t generation = generation_;
  const bool watched = now_.state == WatchState::kWatched;
  lock.unlock();
  return watched ? tick_heartbeat(generation) : tick_describe(generation);
}

std::optional<WorkerEvent> WorkerWatch::tick_describe(uint64_t generation) {
  Result<WorkerInfo> info = worker_.describe(config_.call_timeout);
  const std::lock_guard lock(mutex_);
  if (generation != generation_) return std::nullopt;
  now_.last_error = info.status();
  if (!info.ok()) {
    become_unreachable();
    return std::nullopt;
  }
  next_tick_ = clock_.now() + config_.heartbeat_interval;
  const bool known =
      now_.state == WatchState::kAvailable && now_.info.incarnation == info->incarnation;
  now_.state = WatchState::kAvailable;
  now_.info = *std::move(info);
  if (known) return std::nullopt;
  return WorkerAvailable{.info = now_.info};
}

std::optional<WorkerEvent> WorkerWatch::tick_heartbeat(uint64_t generation) {
  std::unique_lock lock(mutex_);
  const uint64_t epoch = epoch_;
  const Duration timeout = heartbeat_timeout();
  const TimePoint started = clock_.now();
  lock.unlock();
  const Result<WorkerStats> stats = worker_.heartbeat(epoch, timeout);
  lock.lock();
  if (generation != generation_) return std::nullopt;
  now_.last_error = stats.status();
  next_tick_ = std::max(clock_.now(), started + config_.heartbeat_interval);
  std::optional<WorkerEvent> event =
      stats.ok() ? judge_stats(*stats) : judge_failure(stats.status());
  if (stats.ok()) now_.stats = *stats;
  if (event) {
    ++now_.num_downs;
    become_unreachable();
  } else if (stats.ok()) {
    last_success_ = clock_.now();
    num_failures_ = 0;
    backoff_ = config_.min_backoff;
  }
  return event;
}

// The last call before the silence limit ends at the limit.
Duration WorkerWatch::heartbeat_timeout() const {
  const Duration left = last_success_ + config_.silence_limit - clock_.now();
  return std::min(config_.call_timeout, std::max(left, kMinHeartbeatTimeout));
}

std::optional<WorkerEvent> WorkerWatch::judge_stats(const WorkerStats& stats) const {
  if (stats.incarnation != incarnation_) {
    return down(DownCause::kRestarted, "the worker was restarted");
  }
  if (stats.epoch != epoch_) {
    return down(DownCause::kSessionLost,
                fmt::format("the worker serves session {} instead of {}", stats.epoch, epoch_));
  }
  if (stats.state == WorkerState::kFailed) {
    return down(DownCause::kFailed, fmt::format("the worker failed: {}", stats.failure));
  }
  // Compared as doubles: the worker's number may be anything.
  const double progress_age_s = static_cast<double>(stats.progress_age_ms) / 1000.0;
  if (stats.step_in_progress && progress_age_s > to_seconds(config_.stuck_limit)) {
    return down(DownCause::kStuck,
                fmt::format("the worker is in a step without progress for {:.1f} s, limit {:.1f} s",
                            progress_age_s,
                            to_seconds(config_.stuck_limit)));
  }
  return std::nullopt;
}

std::optional<WorkerEvent> WorkerWatch::judge_failure(const Status& status) {
  // The worker answered, and answered that our session is gone.
  if (status.code() == StatusCode::kFailedPrecondition || status.code() == StatusCode::kAborted) {
    return down(DownCause::kSessionLost, status.message());
  }
  const bool answered = status.code() != StatusCode::kDeadlineExceeded;
  if (answered && ++num_failures_ >= config_.max_failures) {
    return down(DownCause::kUnreachable, status.to_string());
  }
  const Duration silence = clock_.now() - last_success_;
  if (silence < config_.silence_limit) return std::nullopt;
  return down(
      DownCause::kSilent,
      fmt::format("no heartbeat for {:.1f} s ({})", to_seconds(silence), status.to_string()));
}

WorkerEvent WorkerWatch::down(DownCause cause, std::string reason) const {
  return WorkerDown{.epoch = epoch_, .cause = cause, .reason = std::move(reason)};
}

// The back-off starts over only after a successful heartbeat: a worker that answers, but cannot be
// configured, is not asked ten times a second.
void WorkerWatch::become_unreachable() {
  now_.state = WatchState::kUnreachable;
  next_tick_ = clock_.now() + backoff_;
  backoff_ = std::min(2 * backoff_, config_.max_backoff);
}

}  // namespace lamina::control
