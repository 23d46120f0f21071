// StressEnd: a GPU as one side of a stress test, for measure/commands.h, and the main of the
// process that is the other side.
#pragma once

#include "device/buffer.h"
#include "device/gpu_stream.h"
#include "transport/cuda_p2p/link.h"
#include "transport/cuda_p2p/step_guard.h"
#include "transport/cuda_p2p/testing/stress.h"

namespace lamina::cuda_p2p::testing {

inline constexpr std::string_view kStressPeerArgument = "stress-peer";

// Requests, each of which is answered.
struct StressCommand {
  uint32_t epoch = 1;
  uint64_t num_requests = 0;
  uint64_t faulty_message = 0;  // of the requests, to see that it is found
};

class StressEnd {
 public:
  // Messages lie in GPU memory. Throws what Link throws.
  StressEnd(Device device, bool asks, int socket);
  ~StressEnd();
  StressEnd(const StressEnd&) = delete;
  StressEnd& operator=(const StressEnd&) = delete;

  Status begin(const StressCommand& command);
  // The error of the wait that failed, if one did; kDataLoss if words were wrong or not compared.
  Status run(const StressCommand& command);

 private:
  Stress stress_of(const StressCommand& command);
  Status check_words(const StressCommand& command);

  bool asks_;
  GpuStream stream_;
  Link link_;
  StepGuard guard_;
  Buffer words_;   // in GPU memory: a meeting's, wrong words, chunks that were compared
  Buffer staged_;  // the same, of the host
};

// Answers until the socket closes. The exit code.
int run_stress_peer();

}  // namespace lamina::cuda_p2p::testing
