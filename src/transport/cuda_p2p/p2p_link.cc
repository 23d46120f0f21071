#include "transport/cuda_p2p/p2p_link.h"

#include <sys/socket.h>

#include <vector>

#include "transport/cuda_p2p/p2p_channel.h"

namespace lamina::cuda_p2p {

std::unique_ptr<DeviceChannel> P2pLink::open_channel(std::span<DeviceLink* const> links,
                                                     const DeviceChannelConfig& config) {
  std::vector<const P2pLink*> of_this_backend;
  of_this_backend.reserve(links.size());
  for (DeviceLink* const link : links) of_this_backend.push_back(static_cast<P2pLink*>(link));
  return std::make_unique<P2pChannel>(std::move(of_this_backend), config);
}

void P2pLink::abort() noexcept {
  ::shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace lamina::cuda_p2p
