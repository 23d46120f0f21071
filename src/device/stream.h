// StreamView: where an operator is enqueued. On CUDA it is a cudaStream_t; on the CPU it is the
// ThreadPool that executes the operator before the call returns. Always passed explicitly, never
// owned: the pool or stream outlives it.
#pragma once

#include "device/device.h"
#include "device/thread_pool.h"

namespace lamina {

class StreamView {
 public:
  // A CPU "stream": operators run on `pool`, synchronously.
  explicit StreamView(ThreadPool& pool) : raw_(&pool) {}

  [[nodiscard]] Device device() const { return device_; }
  // CHECKs that the device is a CPU.
  [[nodiscard]] ThreadPool& pool() const {
    LAMINA_DCHECK(device_.kind == DeviceKind::kCpu);
    return *static_cast<ThreadPool*>(raw_);
  }

  // The calling thread will do nothing but enqueue here, and starts no thread: it may be kept where
  // that is fastest.
  void adopt_this_thread() const { pool().bind_submitter(); }

 private:
  Device device_{};
  void* raw_;
};

}  // namespace lamina
