// WorkerWatch: what one engine knows of one attention worker's life. While no session is watched it
// asks describe() until the worker answers; while one is, it sends heartbeats and decides when the
// worker counts as down. tick() does whatever is due, on the caller's thread and the clock given:
// WorkerMonitor gives it a thread, tests a ManualClock and a fake AttentionControl. Internally
// locked, but tick() comes from one thread.
//
//                   answers                    watch()
//   kUnreachable ------------> kAvailable -------------------> kWatched
//        ^                         |                               |
//        +---- fails, unwatch() ---+------ down, unwatch() --------+
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/clock.h"
#include "control/attention_control.h"

namespace lamina::control {

// Defaults find a killed worker within 1 s, a stopped one or a cut link within 2.5 s.
struct WorkerMonitorConfig {
  Duration heartbeat_interval = std::chrono::milliseconds(500);
  Duration call_timeout = std::chrono::seconds(1);
  // Down after this long without a successful heartbeat, or after this many calls in a row that
  // failed otherwise than by their deadline.
  Duration silence_limit = std::chrono::seconds(2);
  int32_t max_failures = 2;
  // Down if the worker reports itself inside a step, and no progress for this long.
  Duration stuck_limit = std::chrono::seconds(60);
  // Between attempts to reach a worker that is not watched: doubled from min up to max.
  Duration min_backoff = std::chrono::milliseconds(100);
  Duration max_backoff = std::chrono::seconds(1);

  // Throws Error kInvalidArgument unless all are positive and min_backoff <= max_backoff.
  void validate() const;
};

enum class DownCause : uint8_t {
  kUnreachable,  // calls fail: killed, or refused
  kSilent,       // no answer in time: stopped, or the link is cut
  kRestarted,    // another incarnation answers
  kSessionLost,  // the worker no longer has our session
  kFailed,       // it says that it failed
  kStuck,        // its RPC thread lives, its step does not
};
// "unreachable", "silent", ...
std::string_view down_cause_name(DownCause cause);

// The worker answers and can be configured; also when a restart was noticed while it was available.
struct WorkerAvailable {
  WorkerInfo info;
};
// The watched session is lost. The worker is asked again until it is available.
struct WorkerDown {
  uint64_t epoch = 0;
  DownCause cause = DownCause::kUnreachable;
  std::string reason;  // with values, for logs and clients' errors
};
using WorkerEvent = std::variant<WorkerAvailable, WorkerDown>;

enum class WatchState : uint8_t { kUnreachable, kAvailable, kWatched };

struct WorkerSnapshot {
  WatchState state = WatchState::kUnreachable;
  WorkerInfo info;    // the last one received
  WorkerStats stats;  // the last ones of the watched session
  Status last_error;  // of the last call that failed, ok after one that succeeded
  uint64_t num_downs = 0;
};

class WorkerWatch {
 public:
  // `worker` and `clock` outlive this. `config` is valid.
  WorkerWatch(const WorkerMonitorConfig& config, AttentionControl& worker, const Clock& clock);

  // The worker was configured with session `epoch` as `incarnation`: heartbeats from now on.
  void watch(uint64_t epoch, uint64_t incarnation);
  // Session ended on purpose, or the worker could not be configured: it is reported available again
  // when it answers, after a back-off. No WorkerDown follows.
  void unwatch();

  // Time until tick() has something to do; zero if it has.
  [[nodiscard]] Duration time_to_tick() const;
  // Does what is due; blocks for one call at most, config.call_timeout at most. The outcome of a
  // call is dropped if watch() or unwatch() came meanwhile.
  std::optional<WorkerEvent> tick();

  [[nodiscard]] WorkerSnapshot snapshot() const;
  [[nodiscard]] const std::string& worker_name() const { return worker_.name(); }

 private:
  std::optional<WorkerEvent> tick_describe(uint64_t generation);
  std::optional<WorkerEvent> tick_heartbeat(uint64_t generation);
  // The rest is called with mutex_ held.
  std::optional<WorkerEvent> judge_stats(const WorkerStats& stats) const;
  std::optional<WorkerEvent> judge_failure(const Status& status);
  [[nodiscard]] WorkerEvent down(DownCause cause, std::string reason) const;
  [[nodiscard]] Duration heartbeat_timeout() const;
  void become_unreachable();

  const WorkerMonitorConfig config_;
  AttentionControl& worker_;
  const Clock& clock_;

  mutable std::mutex mutex_;
  WorkerSnapshot now_;
  uint64_t generation_ = 0;  // counts watch() and unwatch()
  TimePoint next_tick_;
  Duration backoff_;
  // Of the watched session.
  uint64_t epoch_ = 0;
  uint64_t incarnation_ = 0;
  TimePoint last_success_;
  int32_t num_failures_ = 0;  // in a row
};

}  // namespace lamina::control
