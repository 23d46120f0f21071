#include "transport/rdma/gin_window.h"

#include <fmt/format.h>

#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "device/gpu_stream.h"

namespace lamina::rdma {

static_assert(kWindowAlignment == NCCL_WIN_REQUIRED_ALIGNMENT);

GinWindow::Memory::Memory(const GinLibrary& library, size_t size_bytes) : library_(library) {
  if (library_.allocate(&data_, size_bytes) == ncclSuccess) return;
  throw Error(StatusCode::kResourceExhausted,
              fmt::format("NCCL allocates no {} bytes that a NIC could reach", size_bytes));
}

GinWindow::Memory::~Memory() {
  if (library_.release(data_) != ncclSuccess) log_error("NCCL does not release a window's memory");
}

GinWindow::GinWindow(const GinLibrary& library,
                     std::unique_ptr<nccl::Communicator> communicator,
                     Config config,
                     Deadline deadline)
    : library_(library), config_(std::move(config)), communicator_(std::move(communicator)) {
  use_device_of(StreamView(config_.device, nullptr));
  require_nic(deadline);
  register_memory(deadline);
  make_device_communicator(deadline);
}

// Both sides find the same: NCCL has compared what they have.
void GinWindow::require_nic(Deadline deadline) {
  ncclCommProperties found = NCCL_COMM_PROPERTIES_INITIALIZER;
  throw_if_error(communicator_->run(
      "asking NCCL for NICs",
      [&](ncclComm_t comm) { return library_.query_properties(comm, &found); },
      deadline));
  if (found.ginType == NCCL_GIN_TYPE_NONE) {
    throw Error(StatusCode::kUnimplemented,
                found.railedGinType == NCCL_GIN_TYPE_NONE
                    ? "--transport rdma: NCCL finds no RDMA NIC on both sides that GPUs can drive "
                      "(NCCL_DEBUG=INFO says what it looked at): --transport nccl"
                    : "--transport rdma: the RDMA NICs of the two sides only reach others of their "
                      "rail (see NCCL_CROSS_NIC): --transport nccl");
  }
  if (!found.deviceApiSupport) {
    throw Error(StatusCode::kUnimplemented,
                "--transport rdma: NCCL has no device API on these GPUs, which needs memory that "
                "both can map (see NCCL_CUMEM_ENABLE): --transport nccl");
  }
}

void GinWindow::register_memory(Deadline deadline) {
  memory_ = std::make_unique<Memory>(library_, config_.layout.size_bytes());
  throw_if_error(communicator_->run(
      "registering memory with a NIC",
      [&](ncclComm_t comm) {
        return library_.register_window(
            comm, memory_->data(), config_.layout.size_bytes(), &window_, NCCL_WIN_COLL_SYMMETRIC);
      },
      deadline));
}

// A signal for each slot: NCCL gives both sides as many.
void GinWindow::make_device_communicator(Deadline deadline) {
  ncclDevCommRequirements wanted = NCCL_DEV_COMM_REQUIREMENTS_INITIALIZER;
  wanted.ginConnectionType = NCCL_GIN_CONNECTION_FULL;
  wanted.ginContextCount = 1;
  wanted.ginSignalCount = static_cast<int>(config_.layout.max_slots());
  throw_if_error(communicator_->run(
      "connecting a GPU to a NIC",
      [&](ncclComm_t comm) { return library_.create_device_communicator(comm, &wanted, &made_); },
      deadline));
  on_device_ = Buffer(memory_of(config_.device.kind), sizeof(made_));
  const Buffer staged(staging_of(config_.device.kind), sizeof(made_));
  std::memcpy(staged.data(), &made_, sizeof(made_));
  std::optional<GpuStream> stream;
  if (config_.device.kind == DeviceKind::kCuda) stream.emplace(config_.device);
  const StreamView view = stream ? stream->view() : StreamView(config_.device, nullptr);
  throw_if_error(copy(on_device_.data(), staged.data(), sizeof(made_), view));
  throw_if_error(synchronize(view));
}

GinWindow::Place GinWindow::place(bool to_listener, size_t slot_idx) const {
  const size_t offset = config_.layout.offset(to_listener, slot_idx);
  return {.header = memory_->data() + offset, .offset = offset};
}

}  // namespace lamina::rdma
