// StepGuard: what bounds the waits of one stream's kernels, or of one CPU thread, and says why they
// ended: a time limit, a word that the host raises when it knows better (the peer's socket closed,
// heartbeats stopped), and the first error. Confined to one thread, but for abort().
#pragma once

#include "base/clock.h"
#include "base/status.h"
#include "device/buffer.h"
#include "device/stream.h"
#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p {

class StepGuard {
 public:
  // A wait lasts `max_wait` and a few milliseconds at most: less than a second, if a dead peer is
  // to be known within one even where nobody raises the word. Allocates on the stream's device.
  // Throws Error.
  StepGuard(StreamView stream, Duration max_wait);

  // Outlived by this.
  [[nodiscard]] StepView view() const;

  // Any thread: ends all waits, also those to come, within a few milliseconds.
  void abort();
  [[nodiscard]] bool is_aborted() const;
  // Of a CPU: of the step's message `use`.
  [[nodiscard]] Stamp stamp_of(uint32_t use) const;
  // After the stream was waited for: kDeadlineExceeded, kUnavailable (aborted), kDataLoss (a
  // message of another size); ok if no wait has failed.
  [[nodiscard]] Status status() const;
  // Forgets errors, that it was aborted, and messages that were left half sent, and begins an
  // epoch, with message 1. The stream is idle; both sides have cleared their inboxes since the
  // other stopped sending. Waits for the GPU.
  [[nodiscard]] Status begin_epoch(uint32_t epoch);

 private:
  StreamView stream_;
  Duration max_wait_;
  Buffer state_;    // a StepState
  Buffer control_;  // a StepControl
  Buffer staged_;   // a StepState of the host
};

}  // namespace lamina::cuda_p2p
