// RdmaLink: an endpoint's link between GPUs of different hosts, by NICs that the GPUs drive
// themselves: NCCL connects them as for nccl, with a window of each channel's on either side.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "transport/nccl/nccl_link.h"
#include "transport/rdma/gin_window.h"

namespace lamina::rdma {

// NCCL, whose version and GIN functions are as this backend needs them.
struct Libraries {
  const nccl::Library& nccl;
  const GinLibrary& gin;
};

class RdmaLink final : public DeviceLink {
 public:
  // Throws what NcclLink and GinWindow throw.
  RdmaLink(const Libraries& libraries,
           const nccl::LinkConfig& config,
           FileHandle socket,
           Deadline deadline);

  std::unique_ptr<DeviceChannel> open_channel(std::span<DeviceLink* const> links,
                                              const DeviceChannelConfig& config) override;
  void abort() noexcept override { connection_.abort(); }

  [[nodiscard]] const nccl::NcclLink& connection() const { return connection_; }
  // Of a channel; as long as the link.
  [[nodiscard]] const GinWindow& window(size_t channel_idx) const { return *windows_[channel_idx]; }

 private:
  nccl::NcclLink connection_;
  std::vector<std::unique_ptr<GinWindow>> windows_;
};

}  // namespace lamina::rdma
