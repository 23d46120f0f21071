// P2pChannel: a stream's messages over links of cuda_p2p: kernels that send and wait by themselves,
// or a CPU's thread (launch.h), within the limits of a StepGuard.
#pragma once

#include <span>
#include <vector>

#include "transport/cuda_p2p/launch.h"
#include "transport/cuda_p2p/p2p_link.h"
#include "transport/cuda_p2p/step_guard.h"
#include "transport/peer_watch.h"

namespace lamina::cuda_p2p {

class P2pChannel final : public DeviceChannel {
 public:
  // Throws what StepGuard and PeerWatch throw.
  P2pChannel(std::vector<const P2pLink*> links, const DeviceChannelConfig& config);

  Status send(std::span<const DeviceTransfer> transfers) override;
  Status receive(std::span<const DeviceTransfer> transfers) override;
  Status receive_merged(const DeviceMerge& merge) override;
  [[nodiscard]] std::byte* place_of(size_t link_idx,
                                    SlotIdx slot,
                                    size_t size_bytes) const override;
  Status end_step(uint32_t num_messages) override;
  [[nodiscard]] bool has_begun(const DeviceTransfer& transfer) const override;
  void abort() override { guard_.abort(); }
  [[nodiscard]] bool is_aborted() const override { return guard_.is_aborted(); }
  [[nodiscard]] Status status() const override { return guard_.status(); }

 private:
  enum class Direction : uint8_t { kSend, kReceive };

  [[nodiscard]] const Link& link(size_t idx) const { return links_[idx]->link(); }
  [[nodiscard]] Transfers launch_of(std::span<const DeviceTransfer> transfers,
                                    Direction direction) const;

  std::vector<const P2pLink*> links_;
  StreamView stream_;
  bool shares_device_;
  StepGuard guard_;
  PeerWatch watch_;
};

}  // namespace lamina::cuda_p2p
