// RdmaChannel: a stream's messages over links of rdma: kernels that send and wait by themselves,
// within the limits of a StepGuard.
#pragma once

#include <span>
#include <vector>

#include "transport/cuda_p2p/step_guard.h"
#include "transport/peer_watch.h"
#include "transport/rdma/launch.h"
#include "transport/rdma/rdma_link.h"

namespace lamina::rdma {

class RdmaChannel final : public DeviceChannel {
 public:
  // Throws what StepGuard and PeerWatch throw.
  RdmaChannel(std::span<const RdmaLink* const> links, const DeviceChannelConfig& config);

  Status send(std::span<const DeviceTransfer> transfers) override;
  Status receive(std::span<const DeviceTransfer> transfers) override;
  [[nodiscard]] std::byte* place_of(size_t link_idx,
                                    SlotIdx slot,
                                    size_t size_bytes) const override;
  Status end_step(uint32_t num_messages) override;
  // Nobody asks: both ends are GPUs.
  [[nodiscard]] bool has_begun(const DeviceTransfer& /*transfer*/) const override { return true; }
  void abort() override { guard_.abort(); }
  [[nodiscard]] bool is_aborted() const override { return guard_.is_aborted(); }
  [[nodiscard]] Status status() const override { return guard_.status(); }

 private:
  // This channel's part of a link.
  struct Lane {
    const GinWindow& window;
    nccl::NcclLink::Slots outgoing;
    nccl::NcclLink::Slots incoming;
  };
  enum class Direction : uint8_t { kSend, kReceive };

  [[nodiscard]] Result<Launch> launch_of(std::span<const DeviceTransfer> transfers,
                                         Direction direction) const;
  [[nodiscard]] Message message_of(const DeviceTransfer& transfer, Direction direction) const;
  void look();

  StreamView stream_;
  bool shares_device_;
  std::vector<Lane> lanes_;  // by link
  cuda_p2p::StepGuard guard_;
  PeerWatch watch_;
};

}  // namespace lamina::rdma
