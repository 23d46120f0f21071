#include "control/worker_monitor.h"

#include "base/log.h"

namespace lamina::control {

WorkerMonitor::WorkerMonitor(const WorkerMonitorConfig& config,
                             const std::vector<AttentionControl*>& workers,
                             WorkerListener& listener,
                             const Clock& clock)
    : listener_(listener) {
  config.validate();
  for (AttentionControl* worker : workers) {
    watchers_.push_back(std::make_unique<Watcher>(config, *worker, clock));
  }
  for (size_t i = 0; i < watchers_.size(); ++i) {
    watchers_[i]->thread = std::thread([this, i] { run(i); });
  }
}

WorkerMonitor::~WorkerMonitor() {
  stop();
}

void WorkerMonitor::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  signal_.notify_all();
  for (const auto& watcher : watchers_) {
    if (watcher->thread.joinable()) watcher->thread.join();
  }
}

void WorkerMonitor::watch(size_t worker_idx, uint64_t epoch, uint64_t incarnation) {
  watchers_.at(worker_idx)->watch.watch(epoch, incarnation);
  poke(*watchers_[worker_idx]);
}

void WorkerMonitor::unwatch(size_t worker_idx) {
  watchers_.at(worker_idx)->watch.unwatch();
  poke(*watchers_[worker_idx]);
}

WorkerSnapshot WorkerMonitor::snapshot(size_t worker_idx) const {
  return watchers_.at(worker_idx)->watch.snapshot();
}

void WorkerMonitor::poke(Watcher& watcher) {
  {
    const std::lock_guard lock(mutex_);
    watcher.poked = true;
  }
  signal_.notify_all();
}

bool WorkerMonitor::is_stopping() const {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

void WorkerMonitor::run(size_t worker_idx) {
  Watcher& watcher = *watchers_[worker_idx];
  while (wait_until_due(watcher)) {
    try {
      const std::optional<WorkerEvent> event = watcher.watch.tick();
      if (event && !is_stopping()) report(worker_idx, *event);
    } catch (const std::exception& error) {
      log_error("monitor of attention worker {}: {}", watcher.watch.worker_name(), error.what());
    }
  }
}

bool WorkerMonitor::wait_until_due(Watcher& watcher) {
  std::unique_lock lock(mutex_);
  watcher.poked = false;
  const Duration wait = watcher.watch.time_to_tick();
  signal_.wait_for(lock, wait, [&] { return stopping_ || watcher.poked; });
  return !stopping_;
}

void WorkerMonitor::report(size_t worker_idx, const WorkerEvent& event) {
  const std::string& name = watchers_[worker_idx]->watch.worker_name();
  if (const auto* down = std::get_if<WorkerDown>(&event)) {
    log_warning("attention worker {} is down ({}) in session {}: {}",
                name,
                down_cause_name(down->cause),
                down->epoch,
                down->reason);
    listener_.worker_down(worker_idx, *down);
    return;
  }
  const WorkerInfo& info = std::get<WorkerAvailable>(event).info;
  log_info("attention worker {} answers: {} pid {}, {}, {} cores",
           name,
           info.hostname,
           info.pid,
           info.device_name,
           info.num_cores);
  listener_.worker_available(worker_idx, info);
}

}  // namespace lamina::control
