// WorkerMonitor: heartbeats of all attention workers of one engine, each on a thread of its own, so
// that a worker that hangs delays no other's. It tells a listener which worker can be configured
// and which one is lost; worker_watch.h holds the rules. It configures nothing itself. Internally
// locked.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "control/worker_watch.h"

namespace lamina::control {

// Called on the monitor's thread of that worker, one call at a time for each worker, without a lock
// held: it may call watch(), unwatch() and snapshot(), but must not stop or destroy the monitor.
class WorkerListener {
 public:
  virtual ~WorkerListener() = default;
  // The worker answers: configure it and call watch(), or unwatch() where that fails, after which
  // this comes again.
  virtual void worker_available(size_t worker_idx, const WorkerInfo& info) = 0;
  // The session is lost; down.epoch tells a late event from a current one.
  virtual void worker_down(size_t worker_idx, const WorkerDown& down) = 0;
};

class WorkerMonitor {
 public:
  // Starts asking at once. `workers`, `listener` and `clock` outlive this; worker_idx counts
  // `workers`. Throws Error kInvalidArgument for a config that is not valid.
  WorkerMonitor(const WorkerMonitorConfig& config,
                const std::vector<AttentionControl*>& workers,
                WorkerListener& listener,
                const Clock& clock = steady_clock());
  WorkerMonitor(const WorkerMonitor&) = delete;
  WorkerMonitor& operator=(const WorkerMonitor&) = delete;
  ~WorkerMonitor();

  // As WorkerWatch's.
  void watch(size_t worker_idx, uint64_t epoch, uint64_t incarnation);
  void unwatch(size_t worker_idx);
  [[nodiscard]] WorkerSnapshot snapshot(size_t worker_idx) const;

  // Returns when no call to the listener is under way and none will come: config.call_timeout at
  // most, besides the listener's own time. Idempotent.
  void stop();

 private:
  struct Watcher {
    Watcher(const WorkerMonitorConfig& config, AttentionControl& worker, const Clock& clock)
        : watch(config, worker, clock) {}
    WorkerWatch watch;
    std::thread thread;
    bool poked = false;  // guarded by mutex_: time_to_tick() may have shrunk
  };

  void run(size_t worker_idx);
  // Or until poked, which tick() takes well. False when stopping.
  bool wait_until_due(Watcher& watcher);
  void report(size_t worker_idx, const WorkerEvent& event);
  void poke(Watcher& watcher);
  [[nodiscard]] bool is_stopping() const;

  WorkerListener& listener_;
  mutable std::mutex mutex_;
  std::condition_variable signal_;
  bool stopping_ = false;
  std::vector<std::unique_ptr<Watcher>> watchers_;  // fixed after construction
};

}  // namespace lamina::control
