// P2pLink: an endpoint's link between devices of one host, by memory that both reach.
#pragma once

#include <memory>
#include <span>

#include "base/file.h"
#include "transport/cuda_p2p/link.h"
#include "transport/device_link.h"

namespace lamina::cuda_p2p {

class P2pLink final : public DeviceLink {
 public:
  // `socket` is connected to the peer. Throws what Link throws.
  P2pLink(const LinkConfig& config, FileHandle socket, Deadline deadline)
      : socket_(std::move(socket)), link_(config, socket_.get(), deadline) {}

  std::unique_ptr<DeviceChannel> open_channel(std::span<DeviceLink* const> links,
                                              const DeviceChannelConfig& config) override;
  void abort() noexcept override;

  [[nodiscard]] const Link& link() const { return link_; }
  // Closes with the peer, or after abort() on either side.
  [[nodiscard]] int socket() const { return socket_.get(); }

 private:
  FileHandle socket_;
  Link link_;
};

}  // namespace lamina::cuda_p2p
