// NcclChannel: a stream's messages over links of nccl. NCCL's kernels wait without a limit, so that
// a thread of the host does it for them: it sees a peer's connection end, and a step that lasts too
// long, and then ends the communicators.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "device/buffer.h"
#include "transport/nccl/communicator.h"
#include "transport/nccl/nccl_link.h"
#include "transport/nccl/staging.h"
#include "transport/nccl/step_count.h"
#include "transport/peer_watch.h"

namespace lamina::nccl {

class NcclChannel final : public DeviceChannel {
 public:
  // Throws what Buffer and PeerWatch throw.
  NcclChannel(std::span<NcclLink* const> links, const DeviceChannelConfig& config);
  // The stream has ended, and graphs in which it was captured are gone: NCCL waits for them.
  ~NcclChannel() override = default;

  // A group of NCCL's for each link.
  Status send(std::span<const DeviceTransfer> transfers) override;
  Status receive(std::span<const DeviceTransfer> transfers) override;
  Status end_step(uint32_t num_messages) override;
  // Nobody asks: both ends are GPUs.
  [[nodiscard]] bool has_begun(const DeviceTransfer& /*transfer*/) const override { return true; }
  void abort() override;
  [[nodiscard]] bool is_aborted() const override { return !status().ok(); }
  [[nodiscard]] Status status() const override;

 private:
  // This channel's part of a link.
  struct Lane {
    std::unique_ptr<Communicator> communicator;
    Staging outgoing;
    Staging incoming;
  };

  [[nodiscard]] Status begin_step();
  [[nodiscard]] Status send_over(Lane& lane,
                                 size_t link_idx,
                                 std::span<const DeviceTransfer> transfers);
  [[nodiscard]] Status receive_over(Lane& lane,
                                    size_t link_idx,
                                    std::span<const DeviceTransfer> transfers);
  void end(const Status& reason);
  void look();

  StreamView stream_;
  StepCount steps_;
  bool is_in_step_ = false;  // of what was enqueued last
  std::vector<Lane> lanes_;  // by link
  mutable std::mutex mutex_;
  Status status_;
  PeerWatch watch_;
};

}  // namespace lamina::nccl
