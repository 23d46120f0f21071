#include "device/gpu_collective.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "device/cuda/stream.h"
#include "device/nccl/library.h"

namespace lamina {
namespace {

// How long an abort leaves a gather to return from NCCL. It returns at once unless it waits for
// other ranks, which the abort then ends.
constexpr auto kReturnLimit = std::chrono::seconds(1);

Status to_status(ncclResult_t result, std::string_view what) {
  if (result == ncclSuccess) return {};
  return unavailable(fmt::format("{}: {}", what, nccl::library().error_string(result)));
}

void log_failure(ncclResult_t result, std::string_view what) {
  const Status status = to_status(result, what);
  if (!status.ok()) log_error("{}", status.message());
}

}  // namespace

struct GpuCollective::Impl {
  Impl(ncclComm_t communicator, StreamView of) : comm(communicator), stream(of) {}

  // Or gives up. Gathers that come later are told, and do not wait for the abort to be over.
  void wait_for_gather() { const std::unique_lock lock(gathering, kReturnLimit); }

  ncclComm_t comm;
  StreamView stream;
  std::timed_mutex gathering;  // held by a gather, which begins none once `is_aborted`
  std::atomic<bool> is_aborted{false};
  // NCCL ends what is under way first, then waits for graphs to go, which whoever aborts may need
  // to return for.
  std::thread aborting;
};

GpuCollective::GpuCollective(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

std::vector<std::unique_ptr<GpuCollective>> GpuCollective::connect(
    std::span<const StreamView> streams) {
  const cuda::DeviceGuard guard(streams.front().device());
  std::vector<int> devices;
  for (const StreamView& stream : streams) devices.push_back(stream.device().idx);
  std::vector<ncclComm_t> comms(streams.size(), nullptr);
  throw_if_error(to_status(
      nccl::library().init_all(comms.data(), static_cast<int>(comms.size()), devices.data()),
      fmt::format("connecting {} GPUs by NCCL", comms.size())));
  std::vector<std::unique_ptr<GpuCollective>> ranks;
  for (size_t rank = 0; rank < comms.size(); ++rank) {
    auto impl = std::make_unique<Impl>(comms[rank], streams[rank]);
    ranks.push_back(std::unique_ptr<GpuCollective>(new GpuCollective(std::move(impl))));
  }
  return ranks;
}

GpuCollective::~GpuCollective() {
  if (impl_->aborting.joinable()) {
    impl_->aborting.join();
  } else {
    log_failure(nccl::library().destroy(impl_->comm), "leaving a group of GPUs");
  }
}

Status GpuCollective::all_gather(const void* mine, void* all, size_t size_bytes) {
  const std::lock_guard lock(impl_->gathering);
  if (impl_->is_aborted) return unavailable("another GPU of the group has failed");
  return to_status(nccl::library().all_gather(
                       mine, all, size_bytes, ncclInt8, impl_->comm, cuda::raw(impl_->stream)),
                   "gathering from all GPUs");
}

void GpuCollective::abort() {
  if (impl_->is_aborted.exchange(true)) return;
  impl_->aborting = std::thread([impl = impl_.get()] {
    use_device_of(impl->stream);
    impl->wait_for_gather();
    log_failure(nccl::library().abort(impl->comm), "aborting a group of GPUs");
  });
}

}  // namespace lamina
