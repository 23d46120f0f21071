#include "transport/cuda_p2p/p2p_channel.h"

#include "base/check.h"
#include "base/error.h"
#include "transport/cuda_p2p/host_messages.h"

namespace lamina::cuda_p2p {
namespace {

// Another session has other links.
constexpr uint32_t kEpoch = 1;

static_assert(kMaxLaunchMessages == kMaxPeers);

uint32_t in_chunks(size_t size_bytes) {
  LAMINA_DCHECK(size_bytes % sizeof(Chunk) == 0);
  return static_cast<uint32_t>(size_bytes / sizeof(Chunk));
}

Rows rows_of(const DeviceRows& rows) {
  return {.data = reinterpret_cast<Chunk*>(rows.data),
          .row_chunks = in_chunks(rows.row_bytes),
          .stride_chunks = in_chunks(rows.stride_bytes)};
}

std::vector<int> sockets_of(const std::vector<const P2pLink*>& links) {
  std::vector<int> sockets;
  sockets.reserve(links.size());
  for (const P2pLink* const link : links) sockets.push_back(link->socket());
  return sockets;
}

}  // namespace

P2pChannel::P2pChannel(std::vector<const P2pLink*> links, const DeviceChannelConfig& config)
    : links_(std::move(links)),
      stream_(config.stream),
      guard_(config.stream, config.max_wait),
      watch_((
          throw_if_error(guard_.begin_epoch(kEpoch)),
          PeerWatchConfig{.sockets = sockets_of(links_), .on_leave = [this] { guard_.abort(); }})) {
}

Transfers P2pChannel::launch_of(std::span<const DeviceTransfer> transfers,
                                Direction direction) const {
  LAMINA_CHECK_LE(transfers.size(), size_t{kMaxPeers});
  Transfers launch;
  launch.step = guard_.view();
  for (const DeviceTransfer& transfer : transfers) {
    const Link& link = link_of(transfer);
    launch.messages[launch.num_messages++] = {
        .slot =
            direction == Direction::kSend ? link.outbox(transfer.slot) : link.inbox(transfer.slot),
        .plan = link.plan(static_cast<uint32_t>(transfer.rows.size_bytes())),
        .rows = rows_of(transfer.rows),
        .use = transfer.use};
  }
  return launch;
}

Status P2pChannel::send(std::span<const DeviceTransfer> transfers) {
  return cuda_p2p::send(launch_of(transfers, Direction::kSend), stream_);
}

Status P2pChannel::receive(std::span<const DeviceTransfer> transfers) {
  return cuda_p2p::receive(launch_of(transfers, Direction::kReceive), stream_);
}

Status P2pChannel::end_step(uint32_t num_messages) {
  return advance(guard_.view(), num_messages, stream_);
}

bool P2pChannel::has_begun(const DeviceTransfer& transfer) const {
  const Link& link = link_of(transfer);
  return cuda_p2p::has_begun(link.inbox(transfer.slot),
                             link.plan(static_cast<uint32_t>(transfer.rows.size_bytes())),
                             guard_.stamp_of(transfer.use));
}

}  // namespace lamina::cuda_p2p
