// TileWorker: what serves a tile of a session's KV cache, as the attention worker's process drives
// it: a state machine fed by readiness, so that a simulator can run it on a virtual clock. Only
// serve() waits. Confined to one thread, but for stats.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "transport/wait_any.h"

namespace lamina {

// Written by the part's thread, read by the heartbeat's.
struct TileWorkerStats {
  std::atomic<uint64_t> num_steps{0};
  std::atomic<uint64_t> num_tokens{0};
  std::atomic<uint64_t> bytes_received{0};
  std::atomic<uint64_t> bytes_sent{0};
  std::atomic<int64_t> attention_ns{0};
  std::atomic<int64_t> wait_ns{0};
  std::atomic<int32_t> num_blocks_used{0};
  std::atomic<int64_t> last_progress_ns{0};  // of steady_clock()
  std::atomic<bool> is_in_step{false};
};

class TileWorker {
 public:
  TileWorker(const TileWorker&) = delete;
  TileWorker& operator=(const TileWorker&) = delete;
  virtual ~TileWorker() = default;

  // Does one thing that needs no waiting, if there is one: false if not. An error ends the session;
  // it has been reported to the model worker where that was possible.
  virtual Result<bool> step() = 0;
  // Adds what step() waits for.
  virtual void add_awaited(std::vector<AwaitedMessage>& awaited) const = 0;

  // Serves the tiles of one session until `should_stop` or an error. `idle_check` bounds each wait,
  // so that stopping is seen.
  static Status serve(std::span<TileWorker* const> workers,
                      const std::atomic<bool>& should_stop,
                      WaitPolicy policy,
                      Duration idle_check);
  Status serve(const std::atomic<bool>& should_stop, WaitPolicy policy, Duration idle_check) {
    TileWorker* self = this;
    return serve({&self, 1}, should_stop, policy, idle_check);
  }

  [[nodiscard]] const TileWorkerStats& stats() const { return stats_; }

 protected:
  TileWorker() = default;

  TileWorkerStats stats_;
};

}  // namespace lamina
