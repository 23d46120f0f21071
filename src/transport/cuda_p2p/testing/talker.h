// One end of a conversation in a process of its own, for the tests and the benchmark: the asking
// process sends commands over the socket, both do their part of each. A GPU, or a thread of the CPU
// that answers one.
#pragma once

#include <cstdint>
#include <vector>

#include "device/buffer.h"
#include "device/gpu_stream.h"
#include "transport/cuda_p2p/link.h"
#include "transport/cuda_p2p/step_guard.h"
#include "transport/cuda_p2p/testing/conversation.h"

namespace lamina::cuda_p2p::testing {

inline constexpr uint32_t kMaxTripBytes = 4 << 20;
inline constexpr uint32_t kMaxStressBytes = 256 << 10;
// Round trips that a captured graph has.
inline constexpr uint32_t kGraphRounds = 20;

// Larger lines than the transport would use, so that they can be measured.
inline constexpr Limits kTalkLimits{.lines_bytes = 128 << 10};

//   kPersistent  `count` round trips in one launch
//   kGraph       `count` replays of a graph with kGraphRounds of them, after a run that is not
//                captured
//   kStress      `count` messages to and fro
enum class Op : uint32_t { kPersistent, kGraph, kStress };
struct Command {
  Op op = Op::kPersistent;
  Form form = Form::kLines;
  uint32_t size_bytes = 0;
  uint32_t epoch = 0;
  uint64_t count = 0;
  uint32_t part_bytes = 0;      // 0: as Limits have it
  uint64_t faulty_message = 0;  // of a stress test's requests, to see that it is found

  [[nodiscard]] Plan plan() const;
};

// Slot 0 is for round trips, the others are for the stress test.
LinkConfig talk_config(Device device, Place place, bool asks);

class GpuTalker {
 public:
  // Throws what Link throws.
  GpuTalker(Device device, Place place, bool asks, int socket, Duration max_wait);
  ~GpuTalker();
  GpuTalker(const GpuTalker&) = delete;
  GpuTalker& operator=(const GpuTalker&) = delete;

  // Makes ready for a command: nothing of an earlier one is left.
  Status begin(const Command& command);
  // Enqueues our part, and waits for it. The error of the wait that failed, if one did; kDataLoss
  // if what came last is not what was sent.
  Status run(const Command& command);
  Status enqueue_persistent(const Command& command);
  // Of the launch that is under way, as the asking side. kDeadlineExceeded.
  Status wait_for_first_round(Deadline deadline);
  Status wait();

  // Of the last command that we asked: microseconds of round trips, in a graph the mean of its
  // own each; sorted.
  [[nodiscard]] const std::vector<double>& times_us() const { return times_us_; }
  [[nodiscard]] uint64_t wrong_words() const { return wrong_words_; }
  [[nodiscard]] StepGuard& guard() { return guard_; }

 private:
  Status run_graph(const Command& command);
  Status enqueue_rounds(const Command& command);
  Status run_stress(const Command& command);
  Status read_times(const Command& command);
  Status check_sink(const Command& command);

  bool asks_;
  GpuStream stream_;
  Link link_;
  StepGuard guard_;
  Buffer source_;  // of what is sent
  Buffer sink_;    // of what comes
  Buffer words_;   // in GPU memory: a meeting's, wrong words, a ClockSpan
  Buffer cycles_;  // of round trips
  Buffer staged_;  // both, of the host
  std::vector<double> times_us_;
  uint64_t wrong_words_ = 0;
};

// The asking side makes both sides ready for a command: until this returns, neither may send.
Status begin(GpuTalker& talker, int socket, const Command& command);
// The asking side's part of a command: begin(), then our own, then the peer's word on its part.
Status ask(GpuTalker& talker, int socket, const Command& command);

// The peer's main: does its part of commands until the socket closes. `arguments`: those behind
// kPeerArgument: "gpu" or "cpu", the device's index, and "gpu-memory" or "host-memory". The exit
// code.
int run_peer(const std::vector<std::string>& arguments);

}  // namespace lamina::cuda_p2p::testing
