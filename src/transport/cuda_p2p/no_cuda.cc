// Linked instead of the kernels and of GPU memory where the build has no CUDA.
#include "base/check.h"
#include "base/error.h"
#include "transport/cuda_p2p/gpu_launch.h"
#include "transport/cuda_p2p/shared_memory.h"

namespace lamina::cuda_p2p {
namespace {

constexpr const char* kMessage = "this build of lamina has no CUDA";

}  // namespace

std::unique_ptr<SharedMemory> make_gpu_memory(size_t /*size_bytes*/, Device /*device*/) {
  throw Error(StatusCode::kUnimplemented, kMessage);
}

std::unique_ptr<SharedMemory> map_gpu_memory(FileHandle /*descriptor*/,
                                             size_t /*size_bytes*/,
                                             Device /*device*/) {
  throw Error(StatusCode::kUnimplemented, kMessage);
}

std::byte* pin_host_memory(std::byte* /*data*/, size_t /*size_bytes*/, Device /*device*/) {
  throw Error(StatusCode::kUnimplemented, kMessage);
}

void unpin_host_memory(std::byte* data) noexcept {
  LAMINA_CHECK(data == nullptr);
}

void load_kernels(Device /*device*/) {
  throw Error(StatusCode::kUnimplemented, kMessage);
}

Status gpu::send(const Transfers& /*transfers*/, StreamView /*stream*/) {
  return unimplemented(kMessage);
}

Status gpu::receive(const Transfers& /*transfers*/, StreamView /*stream*/) {
  return unimplemented(kMessage);
}

Status gpu::receive_merged(const Merge& /*merge*/, StreamView /*stream*/) {
  return unimplemented(kMessage);
}

Status gpu::advance(const StepView& /*step*/, uint32_t /*num_messages*/, StreamView /*stream*/) {
  return unimplemented(kMessage);
}

}  // namespace lamina::cuda_p2p
