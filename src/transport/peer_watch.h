// PeerWatch: a thread that sleeps until a peer's process is gone, however it ended, and then has
// those told who wait for it. A peer that only stopped is left to their time limits, at which the
// thread may look now and then.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/file.h"

namespace lamina {

struct PeerWatchConfig {
  std::vector<int> sockets = {};  // the other ends close with the peers; they outlive the watch
  // Called by the thread, once, when the first of them has closed; nothing is watched afterwards.
  std::function<void()> on_leave;
  // Until then also this, if given, every `tick`.
  std::function<void()> on_tick = {};
  Duration tick = std::chrono::milliseconds(100);
};

class PeerWatch {
 public:
  // Throws Error kUnavailable.
  explicit PeerWatch(PeerWatchConfig config);
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;
  // Nothing is called any more.
  ~PeerWatch();

  // on_leave has returned.
  [[nodiscard]] bool has_left() const { return has_left_.load(); }

 private:
  void watch();

  PeerWatchConfig config_;
  FileHandle stop_;  // an eventfd
  std::atomic<bool> has_left_{false};
  std::thread thread_;
};

}  // namespace lamina
