// GpuEnd: a GPU as one side of round trips, which sends and receives by itself: in one launch of a
// kernel that stays, or by captured graphs of the kernels that steps use. Confined to one thread.
#pragma once

#include "device/buffer.h"
#include "device/gpu_stream.h"
#include "transport/measure/device_end.h"

namespace lamina::measure {

class GpuEnd final : public DeviceEnd {
 public:
  // `socket` is connected to the other side. Throws what Link and Buffer throw; kUnimplemented in a
  // build without CUDA.
  GpuEnd(const DeviceEndConfig& config, int socket, Deadline deadline);
  GpuEnd(const GpuEnd&) = delete;
  GpuEnd& operator=(const GpuEnd&) = delete;
  ~GpuEnd() override;

  Status begin(const DeviceCommand& command) override;
  Status run(const DeviceCommand& command) override;
  [[nodiscard]] cuda_p2p::StepGuard& guard() override { return guard_; }

  // What run() does in one launch, in two steps: between them it is under way.
  Status enqueue_persistent(const DeviceCommand& command);
  Status wait();
  // In GPU memory, of that launch's round trips: not 0 once it was made.
  [[nodiscard]] const Buffer& cycles() const { return cycles_; }

 private:
  Status run_persistent(const DeviceCommand& command);
  Status run_graph(const DeviceCommand& command);
  Status enqueue_trips(const DeviceCommand& command);
  Status read_times(const DeviceCommand& command);
  [[nodiscard]] cuda_p2p::Chunk* place_of(const DeviceCommand& command) const;
  Status check_sink(const DeviceCommand& command);

  bool asks_;
  GpuStream stream_;
  cuda_p2p::Link link_;
  cuda_p2p::StepGuard guard_;
  Buffer source_;  // of what is sent
  Buffer sink_;    // of what comes
  Buffer words_;   // in GPU memory: a meeting's, and a ClockSpan
  Buffer cycles_;  // of round trips
  Buffer staged_;  // each of them, of the host
};

}  // namespace lamina::measure
