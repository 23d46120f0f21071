#include "device/cuda/memory.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstring>

#include "base/log.h"
#include "device/cuda/error.h"
#include "device/cuda/stream.h"

namespace lamina::cuda {
namespace {

std::byte* allocate_on_device(size_t size_bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, size_bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // or the next call would report it again
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    throw Error(StatusCode::kResourceExhausted,
                fmt::format("cannot allocate {} bytes of GPU memory, {} of {} are free: use a "
                            "smaller --kv-cache-memory-bytes or --gpu-memory-utilization",
                            size_bytes,
                            free_bytes,
                            total_bytes));
  }
  throw_if_error(error, "allocating GPU memory");
  throw_if_error(cudaMemset(data, 0, size_bytes), "clearing GPU memory");
  // It is enqueued on the default stream, for which our streams do not wait.
  throw_if_error(cudaStreamSynchronize(nullptr), "clearing GPU memory");
  return static_cast<std::byte*>(data);
}

std::byte* allocate_pinned(size_t size_bytes) {
  void* data = nullptr;
  throw_if_error(cudaHostAlloc(&data, size_bytes, cudaHostAllocPortable),
                 fmt::format("allocating {} bytes of pinned memory", size_bytes));
  std::memset(data, 0, size_bytes);
  return static_cast<std::byte*>(data);
}

}  // namespace

std::byte* allocate(MemoryKind kind, size_t size_bytes) {
  return kind == MemoryKind::kCuda ? allocate_on_device(size_bytes) : allocate_pinned(size_bytes);
}

void release(MemoryKind kind, std::byte* data) noexcept {
  const cudaError_t error = kind == MemoryKind::kCuda ? cudaFree(data) : cudaFreeHost(data);
  if (error != cudaSuccess) log_error("releasing CUDA memory: {}", cudaGetErrorString(error));
}

Status copy(void* to, const void* from, size_t size_bytes, StreamView stream) {
  return to_status(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDefault, raw(stream)),
                   "copying between host and GPU");
}

Status copy_rows(const RowCopy& rows, StreamView stream) {
  return to_status(cudaMemcpy2DAsync(rows.to,
                                     rows.to_stride,
                                     rows.from,
                                     rows.from_stride,
                                     rows.row_bytes,
                                     rows.num_rows,
                                     cudaMemcpyDefault,
                                     raw(stream)),
                   "copying rows between host and GPU");
}

Status synchronize(StreamView stream) {
  return to_status(cudaStreamSynchronize(raw(stream)), device_name(stream.device()));
}

bool has_pending_work(StreamView stream) {
  return cudaStreamQuery(raw(stream)) == cudaErrorNotReady;
}

void use_device(Device device) noexcept {
  const cudaError_t error = cudaSetDevice(device.idx);
  if (error != cudaSuccess) log_error("using a GPU: {}", cudaGetErrorString(error));
}

DeviceMemory memory_of(Device device) {
  const DeviceGuard guard(device);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  throw_if_error(cudaMemGetInfo(&free_bytes, &total_bytes), device_name(device));
  return {free_bytes, total_bytes};
}

int32_t num_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

}  // namespace lamina::cuda
