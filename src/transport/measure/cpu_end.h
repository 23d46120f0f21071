// CpuEnd: a thread of the CPU as one side of round trips, through host memory. It polls, and gives
// its core away between two looks; waits are bounded by StepGuard.
#pragma once

#include <vector>

#include "transport/measure/device_end.h"

namespace lamina::measure {

class CpuEnd final : public DeviceEnd {
 public:
  // `socket` is connected to the other side. Throws what Link throws.
  CpuEnd(const DeviceEndConfig& config, int socket, Deadline deadline);

  Status begin(const DeviceCommand& command) override;
  Status run(const DeviceCommand& command) override;
  [[nodiscard]] cuda_p2p::StepGuard& guard() override { return guard_; }

 private:
  bool asks_;
  ThreadPool pool_{1};
  cuda_p2p::Link link_;
  cuda_p2p::StepGuard guard_;
  std::vector<cuda_p2p::Chunk> source_;  // of what is sent
  std::vector<cuda_p2p::Chunk> sink_;    // of what comes
};

}  // namespace lamina::measure
