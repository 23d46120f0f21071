#include "kernels/cuda/workspace.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "device/buffer.h"
#include "device/cuda/error.h"
#include "device/cuda/stream.h"

namespace lamina::kernels::cuda {
namespace {

class Workspaces {
 public:
  // Of the stream, the largest last: its thread's, who alone changes them. Others are not held up
  // meanwhile, since what allocating waits for may wait for what they enqueue on another device.
  std::vector<Buffer>& of(StreamView stream, WorkspaceUse use) {
    const std::lock_guard lock(mutex_);
    return pieces_[{stream.device().idx, stream.cuda_stream(), use}];
  }

 private:
  using Key = std::tuple<int32_t, void*, WorkspaceUse>;  // device, stream

  std::mutex mutex_;
  std::map<Key, std::vector<Buffer>> pieces_;
};

// Never destroyed: the driver may be gone by the time that statics are.
Workspaces& workspaces() {
  static auto* const all = new Workspaces;
  return *all;
}

Result<Buffer> allocate(StreamView stream, MemoryKind kind, size_t size_bytes) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  LAMINA_RETURN_IF_ERROR(
      lamina::cuda::to_status(cudaStreamIsCapturing(lamina::cuda::raw(stream), &capture),
                              "asking whether a stream is captured"));
  if (capture != cudaStreamCaptureStatusNone) {
    return failed_precondition(
        "an operator needs more workspace while its stream is captured: run it once before");
  }
  try {
    const lamina::cuda::DeviceGuard guard(stream.device());
    return Buffer(kind, size_bytes);
  } catch (const Error& error) {
    return error.status();
  }
}

}  // namespace

Result<std::byte*> workspace(StreamView stream, WorkspaceUse use, size_t size_bytes) {
  std::vector<Buffer>& pieces = workspaces().of(stream, use);
  if (pieces.empty() || pieces.back().size_bytes() < size_bytes) {
    const size_t doubled = pieces.empty() ? 0 : 2 * pieces.back().size_bytes();
    const MemoryKind kind =
        use == WorkspaceUse::kSampling ? MemoryKind::kPinnedHost : MemoryKind::kCuda;
    LAMINA_ASSIGN_OR_RETURN(Buffer piece, allocate(stream, kind, std::max(size_bytes, doubled)));
    pieces.push_back(std::move(piece));
  }
  return pieces.back().data();
}

}  // namespace lamina::kernels::cuda
