#include "device/stream.h"

#include <atomic>
#include <cstring>

#include "base/cpu_time.h"
#include "device/cuda/memory.h"
#include "device/waiting_time.h"

namespace lamina {
namespace {

std::atomic<int64_t> waiting_ns{0};
thread_local Duration thread_waiting{};

}  // namespace

void StreamView::adopt_this_thread() const {
  use_device_of(*this);
  if (device_.kind == DeviceKind::kCpu) pool().bind_submitter();
}

StreamView use_device_of(StreamView stream) {
  if (stream.device().kind == DeviceKind::kCuda) cuda::use_device(stream.device());
  return stream;
}

Status copy(void* to, const void* from, size_t size_bytes, StreamView stream) {
  if (size_bytes == 0) return {};
  if (stream.device().kind == DeviceKind::kCuda) return cuda::copy(to, from, size_bytes, stream);
  std::memcpy(to, from, size_bytes);
  return {};
}

Status copy_rows(const RowCopy& rows, StreamView stream) {
  const bool has_gaps = rows.to_stride != rows.row_bytes || rows.from_stride != rows.row_bytes;
  if (!has_gaps || rows.num_rows <= 1) {
    return copy(rows.to, rows.from, rows.row_bytes * rows.num_rows, stream);
  }
  if (stream.device().kind == DeviceKind::kCuda) return cuda::copy_rows(rows, stream);
  for (size_t i = 0; i < rows.num_rows; ++i) {
    std::memcpy(static_cast<std::byte*>(rows.to) + i * rows.to_stride,
                static_cast<const std::byte*>(rows.from) + i * rows.from_stride,
                rows.row_bytes);
  }
  return {};
}

Status synchronize(StreamView stream) {
  if (stream.device().kind != DeviceKind::kCuda) return {};
  const Duration begin = thread_cpu_time();
  Status status = cuda::synchronize(stream);
  const Duration waited = thread_cpu_time() - begin;
  thread_waiting += waited;
  waiting_ns += waited.count();
  return status;
}

Duration time_waiting() {
  return Duration(waiting_ns.load());
}

Duration thread_time_waiting() {
  return thread_waiting;
}

bool has_pending_work(StreamView stream) {
  return stream.device().kind == DeviceKind::kCuda && cuda::has_pending_work(stream);
}

}  // namespace lamina
