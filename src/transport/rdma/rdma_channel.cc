#include "transport/rdma/rdma_channel.h"

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"

namespace lamina::rdma {
namespace {

using cuda_p2p::Chunk;

// Another session has other links.
constexpr uint32_t kEpoch = 1;
// All messages are pushed: a NIC promises no order among the words of one.
constexpr cuda_p2p::Limits kLimits = {.lines_bytes = 0};

static_assert(kMaxLaunchMessages == cuda_p2p::kMaxPeers);
static_assert(kDeviceRowAlignment == sizeof(Chunk));

uint32_t in_chunks(size_t size_bytes) {
  return static_cast<uint32_t>(size_bytes / sizeof(Chunk));
}

cuda_p2p::Rows rows_of(const DeviceRows& rows) {
  return {.data = reinterpret_cast<Chunk*>(rows.data),
          .row_chunks = in_chunks(rows.row_bytes),
          .stride_chunks = in_chunks(rows.stride_bytes)};
}

std::vector<int> sockets_of(std::span<const RdmaLink* const> links) {
  std::vector<int> sockets;
  sockets.reserve(links.size());
  for (const RdmaLink* const link : links) sockets.push_back(link->connection().socket());
  return sockets;
}

}  // namespace

RdmaChannel::RdmaChannel(std::span<const RdmaLink* const> links, const DeviceChannelConfig& config)
    : stream_(config.stream),
      shares_device_(config.shares_device),
      lanes_([&] {
        std::vector<Lane> lanes;
        for (const RdmaLink* const link : links) {
          lanes.push_back({.window = link->window(config.idx),
                           .outgoing = link->connection().send_slots(config.idx),
                           .incoming = link->connection().receive_slots(config.idx)});
        }
        return lanes;
      }()),
      guard_(config.stream, config.max_wait),
      watch_((throw_if_error(guard_.begin_epoch(kEpoch)),
              PeerWatchConfig{.sockets = sockets_of(links),
                              .on_leave = [this] { guard_.abort(); },
                              .on_tick = [this] { look(); }})) {}

void RdmaChannel::look() {
  if (guard_.is_aborted()) return;
  for (const Lane& lane : lanes_) {
    const Status noticed = lane.window.check();
    if (noticed.ok()) continue;
    log_error("GPUs over a NIC: {}", noticed.message());
    return guard_.abort();
  }
}

Message RdmaChannel::message_of(const DeviceTransfer& transfer, Direction direction) const {
  const bool sends = direction == Direction::kSend;
  const Lane& lane = lanes_[transfer.link_idx];
  const uint32_t slot_idx = transfer.slot - (sends ? lane.outgoing : lane.incoming).first;
  const GinWindow::Place place = sends ? lane.window.outbox(slot_idx) : lane.window.inbox(slot_idx);
  Message message = {.communicator = lane.window.device_communicator(),
                     .window = lane.window.handle(),
                     .offset = place.offset,
                     .signal = slot_idx,
                     .header = reinterpret_cast<MessageHeader*>(place.header),
                     .plan = make_plan(static_cast<uint32_t>(transfer.rows.size_bytes()), kLimits),
                     .rows = rows_of(transfer.rows),
                     .use = transfer.use};
  if (sends) return message;
  if (shares_device_) message.plan = recut(message.plan, cuda_p2p::kMaxWaitingBlocks);
  if (message.rows.data == message.payload()) {
    message.rows.data = nullptr;
    message.plan = recut(message.plan, 1);
  }
  return message;
}

Result<Launch> RdmaChannel::launch_of(std::span<const DeviceTransfer> transfers,
                                      Direction direction) const {
  LAMINA_CHECK_LE(transfers.size(), kMaxLaunchMessages);
  Launch launch;
  launch.step = guard_.view();
  for (const DeviceTransfer& transfer : transfers) {
    const Lane& lane = lanes_[transfer.link_idx];
    const auto& slots = direction == Direction::kSend ? lane.outgoing : lane.incoming;
    LAMINA_RETURN_IF_ERROR(slots.check(transfer));
    launch.messages[launch.num_messages++] = message_of(transfer, direction);
  }
  return launch;
}

Status RdmaChannel::send(std::span<const DeviceTransfer> transfers) {
  LAMINA_ASSIGN_OR_RETURN(const Launch launch, launch_of(transfers, Direction::kSend));
  return rdma::send(launch, stream_);
}

Status RdmaChannel::receive(std::span<const DeviceTransfer> transfers) {
  LAMINA_ASSIGN_OR_RETURN(const Launch launch, launch_of(transfers, Direction::kReceive));
  return rdma::receive(launch, stream_);
}

std::byte* RdmaChannel::place_of(size_t link_idx, SlotIdx slot, size_t /*size_bytes*/) const {
  const Lane& lane = lanes_[link_idx];
  return lane.window.inbox(slot - lane.incoming.first).header + sizeof(MessageHeader);
}

Status RdmaChannel::end_step(uint32_t num_messages) {
  return cuda_p2p::advance(guard_.view(), num_messages, stream_);
}

}  // namespace lamina::rdma
