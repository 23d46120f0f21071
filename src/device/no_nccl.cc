// Linked instead of device/nccl/ where the build has no NCCL.
#include "base/error.h"
#include "device/gpu_collective.h"

namespace lamina {
namespace {

constexpr const char* kMessage =
    "this build of lamina has no NCCL, by which GPUs share a model: build it where nccl.h is";

}  // namespace

struct GpuCollective::Impl {};

std::vector<std::unique_ptr<GpuCollective>> GpuCollective::connect(
    std::span<const StreamView> /*streams*/) {
  throw Error(StatusCode::kUnimplemented, kMessage);
}

GpuCollective::~GpuCollective() = default;

Status GpuCollective::all_gather(const void* /*mine*/, void* /*all*/, size_t /*size_bytes*/) {
  return unimplemented(kMessage);
}

void GpuCollective::abort() {}

}  // namespace lamina
