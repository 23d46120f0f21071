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
      shares_device_(config.shares_device),
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
    const Link& link = this->link(transfer.link_idx);
    const bool sends = direction == Direction::kSend;
    const SlotView& slot = sends ? link.outbox(transfer.slot) : link.inbox(transfer.slot);
    const Plan plan = link.plan(static_cast<uint32_t>(transfer.rows.size_bytes()));
    Rows rows = rows_of(transfer.rows);
    if (!sends && rows.data == slot.payload) rows.data = nullptr;
    launch.messages[launch.num_messages++] = {
        .slot = slot,
        .plan = sends || !shares_device_ ? plan : recut(plan, kMaxWaitingBlocks),
        .rows = rows,
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

Status P2pChannel::receive_merged(const DeviceMerge& merge) {
  LAMINA_CHECK_LE(merge.partials.size(), size_t{kMaxPeers});
  Merge launch;
  launch.step = guard_.view();
  launch.shape = {.num_tokens = merge.num_tokens,
                  .num_heads = merge.num_heads,
                  .row_chunks = merge.head_dim / kPartialFloats,
                  .sinks = merge.sinks};
  for (const DevicePartial& partial : merge.partials) {
    const Link& link = this->link(partial.link_idx);
    const uint32_t num_rows = merge.num_tokens * (partial.head_end - partial.head_begin);
    launch.sources[launch.num_sources++] = {
        .slot = link.inbox(partial.slot),
        .plan = link.plan(partial_bytes(num_rows, merge.head_dim)),
        .use = merge.use,
        .head_begin = partial.head_begin,
        .head_end = partial.head_end};
  }
  launch.out = merge.out;
  launch.out_stride = merge.out_stride;
  launch.out_is_bf16 = merge.out_is_bf16;
  return cuda_p2p::receive_merged(launch, stream_);
}

// Lines have to be unpacked, and a GPU would fetch what lies with the host again and again.
std::byte* P2pChannel::place_of(size_t link_idx, SlotIdx slot, size_t size_bytes) const {
  const Link& link = this->link(link_idx);
  const bool is_near =
      link.place() == Place::kGpuMemory || stream_.device().kind == DeviceKind::kCpu;
  if (!is_near || link.plan(static_cast<uint32_t>(size_bytes)).form != Form::kPushed)
    return nullptr;
  return reinterpret_cast<std::byte*>(link.inbox(slot).payload);
}

Status P2pChannel::end_step(uint32_t num_messages) {
  return advance(guard_.view(), num_messages, stream_);
}

bool P2pChannel::has_begun(const DeviceTransfer& transfer) const {
  const Link& link = this->link(transfer.link_idx);
  return cuda_p2p::has_begun(link.inbox(transfer.slot),
                             link.plan(static_cast<uint32_t>(transfer.rows.size_bytes())),
                             guard_.stamp_of(transfer.use));
}

}  // namespace lamina::cuda_p2p
