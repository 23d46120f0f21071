// Linked instead of device/cuda/ where the build has no CUDA.
#include "base/check.h"
#include "base/error.h"
#include "device/cuda/memory.h"
#include "device/gpu_graph.h"
#include "device/gpu_stream.h"
#include "device/upload.h"

namespace lamina::cuda {
namespace {

constexpr const char* kMessage = "this build of lamina has no CUDA";

}  // namespace

std::byte* allocate(MemoryKind /*kind*/, size_t /*size_bytes*/) {
  throw Error(StatusCode::kUnimplemented, kMessage);
}

void release(MemoryKind /*kind*/, std::byte* data) noexcept {
  LAMINA_CHECK(data == nullptr);
}

Status copy(void* /*to*/, const void* /*from*/, size_t /*size_bytes*/, StreamView /*stream*/) {
  return unimplemented(kMessage);
}

Status copy_rows(const RowCopy& /*rows*/, StreamView /*stream*/) {
  return unimplemented(kMessage);
}

Status synchronize(StreamView /*stream*/) {
  return unimplemented(kMessage);
}

bool has_pending_work(StreamView /*stream*/) {
  return false;
}

void use_device(Device /*device*/) noexcept {}

DeviceMemory memory_of(Device /*device*/) {
  throw Error(StatusCode::kUnimplemented, kMessage);
}

int32_t num_devices() {
  return 0;
}

}  // namespace lamina::cuda

namespace lamina {

Result<GpuGraph> GpuGraph::capture(StreamView /*stream*/,
                                   const std::function<Status()>& /*enqueue*/) {
  return unimplemented(cuda::kMessage);
}

GpuGraph::GpuGraph(GpuGraph&& /*other*/) noexcept = default;
GpuGraph& GpuGraph::operator=(GpuGraph&& /*other*/) noexcept = default;
GpuGraph::~GpuGraph() = default;

Status GpuGraph::launch(StreamView /*stream*/) const {
  return unimplemented(cuda::kMessage);
}

Status upload(std::byte* /*to*/,
              const std::byte* /*from*/,
              std::span<const UploadPiece> /*pieces*/,
              StreamView /*stream*/) {
  return unimplemented(cuda::kMessage);
}

GpuStream::GpuStream(Device device) : device_(device) {
  throw Error(StatusCode::kUnimplemented,
              device_name(device) + ": " + "this build of lamina has no CUDA" +
                  ", build it where CUDA's toolkit is");
}

GpuStream::~GpuStream() = default;

}  // namespace lamina
