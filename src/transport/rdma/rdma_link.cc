#include "transport/rdma/rdma_link.h"

#include "transport/rdma/rdma_channel.h"

namespace lamina::rdma {

RdmaLink::RdmaLink(const Libraries& libraries,
                   const nccl::LinkConfig& config,
                   FileHandle socket,
                   Deadline deadline)
    : connection_(libraries.nccl, config, std::move(socket), deadline) {
  for (size_t idx = 0; idx < config.num_channels; ++idx) {
    const auto received = connection_.receive_slots(idx).capacities;
    const auto sent = connection_.send_slots(idx).capacities;
    windows_.push_back(std::make_unique<GinWindow>(
        libraries.gin,
        connection_.take_communicator(idx),
        GinWindow::Config{
            .device = config.device,
            .listens = config.listens,
            .layout = config.listens ? WindowLayout(received, sent) : WindowLayout(sent, received)},
        deadline));
  }
}

std::unique_ptr<DeviceChannel> RdmaLink::open_channel(std::span<DeviceLink* const> links,
                                                      const DeviceChannelConfig& config) {
  std::vector<const RdmaLink*> of_this_backend;
  of_this_backend.reserve(links.size());
  for (DeviceLink* const link : links) of_this_backend.push_back(static_cast<RdmaLink*>(link));
  return std::make_unique<RdmaChannel>(of_this_backend, config);
}

}  // namespace lamina::rdma
