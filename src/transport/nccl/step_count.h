// StepCount: how a host sees how far a stream's steps are that it does not follow: words that the
// stream itself counts up where a step begins and where it ends, also in replays of graphs. Beyond
// a limit a step is late.
#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "device/buffer.h"
#include "device/stream.h"

namespace lamina::nccl {

class StepCount {
 public:
  // Throws Error kResourceExhausted.
  StepCount(StreamView stream, Duration limit);

  // The stream's part, enqueued.
  [[nodiscard]] Status begin();
  [[nodiscard]] Status end();

  // The watcher's, at any time `now` that only grows, from one thread: whether the step that is
  // under way has been seen for longer than the limit.
  [[nodiscard]] bool is_late(TimePoint now);
  [[nodiscard]] Duration limit() const { return limit_; }

 private:
  [[nodiscard]] Status count();
  [[nodiscard]] uint64_t seen() const;

  StreamView stream_;
  Duration limit_;
  Buffer state_;  // a cuda_p2p::StepState that the host reads, too: odd within a step
  uint64_t last_seen_ = 0;
  TimePoint since_{};
};

}  // namespace lamina::nccl
