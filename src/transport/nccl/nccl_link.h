// NcclLink: an endpoint's link between GPUs of different hosts, by NCCL: a communicator of the two
// for each channel, since NCCL orders the messages of one communicator.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/file.h"
#include "transport/device_link.h"
#include "transport/nccl/agreement.h"
#include "transport/nccl/communicator.h"

namespace lamina::nccl {

class NcclLink final : public DeviceLink {
 public:
  // `socket`: as for agree(); afterwards its end tells of the peer's. Throws what agree() and
  // Communicator throw.
  NcclLink(const Library& library, LinkConfig config, FileHandle socket, Deadline deadline);

  std::unique_ptr<DeviceChannel> open_channel(std::span<DeviceLink* const> links,
                                              const DeviceChannelConfig& config) override;
  void abort() noexcept override;

  // That of a channel, which owns it from now on. Once.
  std::unique_ptr<Communicator> take_communicator(size_t channel_idx);
  // Closes with the peer, or after abort() on either side.
  [[nodiscard]] int socket() const { return socket_.get(); }
  // The slots of a channel: their capacities, and the number of the first.
  struct Slots {
    SlotIdx first = 0;
    std::span<const uint32_t> capacities;
  };
  [[nodiscard]] Slots receive_slots(size_t channel_idx) const;
  [[nodiscard]] Slots send_slots(size_t channel_idx) const;

 private:
  LinkConfig config_;
  FileHandle socket_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
};

}  // namespace lamina::nccl
