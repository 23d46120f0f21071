// StreamView: where an operator is enqueued. On CUDA it is a cudaStream_t; on the CPU it is the
// ThreadPool that executes the operator before the call returns. Always passed explicitly, never
// owned: the pool or stream outlives it.
#pragma once

#include "base/status.h"
#include "device/device.h"
#include "device/thread_pool.h"

namespace lamina {

class StreamView {
 public:
  // A CPU "stream": operators run on `pool`, synchronously.
  explicit StreamView(ThreadPool& pool) : raw_(&pool) {}
  // Of a CUDA device: `raw` is a cudaStream_t, not the default stream. See device/cuda/stream.h.
  StreamView(Device device, void* raw) : device_(device), raw_(raw) {}

  [[nodiscard]] Device device() const { return device_; }
  // CHECKs that the device is a CPU.
  [[nodiscard]] ThreadPool& pool() const {
    LAMINA_DCHECK(device_.kind == DeviceKind::kCpu);
    return *static_cast<ThreadPool*>(raw_);
  }
  // The cudaStream_t; null on the CPU.
  [[nodiscard]] void* cuda_stream() const {
    return device_.kind == DeviceKind::kCuda ? raw_ : nullptr;
  }

  // The calling thread will do nothing but enqueue here, and starts no thread: it may be kept where
  // that is fastest. Includes use_device_of().
  void adopt_this_thread() const;

 private:
  Device device_{};
  void* raw_;
};

// `stream` itself. What the calling thread allocates on a GPU from now on is on its device.
StreamView use_device_of(StreamView stream);

// Copies `size_bytes` in stream order; either side may be host or device memory. On the CPU it is
// done when this returns; on CUDA host memory has to be pinned for that not to wait.
[[nodiscard]] Status copy(void* to, const void* from, size_t size_bytes, StreamView stream);
// The same of `num_rows` rows of `row_bytes`, each side's rows so many bytes apart.
struct RowCopy {
  void* to = nullptr;
  size_t to_stride = 0;
  const void* from = nullptr;
  size_t from_stride = 0;
  size_t row_bytes = 0;
  size_t num_rows = 0;
};
[[nodiscard]] Status copy_rows(const RowCopy& rows, StreamView stream);
// Waits until what was enqueued is done. kInternal or kUnavailable where some of it failed.
[[nodiscard]] Status synchronize(StreamView stream);
// Whether some of what was enqueued is still to be done. From any thread, while nobody captures.
[[nodiscard]] bool has_pending_work(StreamView stream);

}  // namespace lamina
