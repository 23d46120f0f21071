#include "transport/nccl/nccl_channel.h"

#include <fmt/format.h>

#include <array>

#include "base/check.h"
#include "base/log.h"

namespace lamina::nccl {
namespace {

// The messages of one link among those of a launch, as NCCL is given them.
class Parts {
 public:
  void add(std::byte* data, const DeviceTransfer& transfer) {
    parts_[size_++] = {.data = data, .size_bytes = transfer.rows.size_bytes()};
  }
  [[nodiscard]] std::span<const Communicator::Part> all() const {
    return std::span(parts_).first(size_);
  }

 private:
  std::array<Communicator::Part, kMaxLaunchMessages> parts_;
  size_t size_ = 0;
};

// Between where a message lies and `packed`, where it has no gaps; none where they are the same.
Status pack(const DeviceRows& rows, std::byte* packed, StreamView stream) {
  if (packed == rows.data) return {};
  return copy_rows({.to = packed,
                    .to_stride = rows.row_bytes,
                    .from = rows.data,
                    .from_stride = rows.stride_bytes,
                    .row_bytes = rows.row_bytes,
                    .num_rows = rows.num_rows},
                   stream);
}

Status unpack(const std::byte* packed, const DeviceRows& rows, StreamView stream) {
  if (packed == rows.data) return {};
  return copy_rows({.to = rows.data,
                    .to_stride = rows.stride_bytes,
                    .from = packed,
                    .from_stride = rows.row_bytes,
                    .row_bytes = rows.row_bytes,
                    .num_rows = rows.num_rows},
                   stream);
}

std::vector<int> sockets_of(std::span<NcclLink* const> links) {
  std::vector<int> sockets;
  sockets.reserve(links.size());
  for (const NcclLink* const link : links) sockets.push_back(link->socket());
  return sockets;
}

}  // namespace

NcclChannel::NcclChannel(std::span<NcclLink* const> links, const DeviceChannelConfig& config)
    : stream_(config.stream),
      steps_(config.stream, config.max_wait),
      lanes_([&] {
        std::vector<Lane> lanes;
        for (NcclLink* const link : links) {
          const DeviceKind kind = config.stream.device().kind;
          lanes.push_back({.communicator = link->take_communicator(config.idx),
                           .outgoing = {kind, link->send_slots(config.idx), config.is_packed},
                           .incoming = {kind, link->receive_slots(config.idx), config.is_packed}});
        }
        return lanes;
      }()),
      watch_({.sockets = sockets_of(links),
              .on_leave = [this] { end(unavailable("the peer of a GPU is gone")); },
              .on_tick = [this] { look(); }}) {}

Status NcclChannel::begin_step() {
  LAMINA_RETURN_IF_ERROR(status());
  if (is_in_step_) return {};
  is_in_step_ = true;
  return steps_.begin();
}

Status NcclChannel::send(std::span<const DeviceTransfer> transfers) {
  LAMINA_CHECK_LE(transfers.size(), kMaxLaunchMessages);
  LAMINA_RETURN_IF_ERROR(begin_step());
  for (size_t i = 0; i < lanes_.size(); ++i) {
    LAMINA_RETURN_IF_ERROR(send_over(lanes_[i], i, transfers));
  }
  return {};
}

Status NcclChannel::send_over(Lane& lane,
                              size_t link_idx,
                              std::span<const DeviceTransfer> transfers) {
  Parts parts;
  for (const DeviceTransfer& transfer : transfers) {
    if (transfer.link_idx != link_idx) continue;
    LAMINA_RETURN_IF_ERROR(lane.outgoing.check(transfer));
    std::byte* const packed = lane.outgoing.place_of(transfer);
    LAMINA_RETURN_IF_ERROR(pack(transfer.rows, packed, stream_));
    parts.add(packed, transfer);
  }
  return parts.all().empty() ? Status() : lane.communicator->send(parts.all(), stream_);
}

Status NcclChannel::receive(std::span<const DeviceTransfer> transfers) {
  LAMINA_CHECK_LE(transfers.size(), kMaxLaunchMessages);
  LAMINA_RETURN_IF_ERROR(begin_step());
  for (size_t i = 0; i < lanes_.size(); ++i) {
    LAMINA_RETURN_IF_ERROR(receive_over(lanes_[i], i, transfers));
  }
  return {};
}

Status NcclChannel::receive_over(Lane& lane,
                                 size_t link_idx,
                                 std::span<const DeviceTransfer> transfers) {
  Parts parts;
  for (const DeviceTransfer& transfer : transfers) {
    if (transfer.link_idx != link_idx) continue;
    LAMINA_RETURN_IF_ERROR(lane.incoming.check(transfer));
    parts.add(lane.incoming.place_of(transfer), transfer);
  }
  if (parts.all().empty()) return {};
  LAMINA_RETURN_IF_ERROR(lane.communicator->receive(parts.all(), stream_));
  for (const DeviceTransfer& transfer : transfers) {
    if (transfer.link_idx != link_idx) continue;
    LAMINA_RETURN_IF_ERROR(unpack(lane.incoming.place_of(transfer), transfer.rows, stream_));
  }
  return {};
}

// NCCL counts messages by itself.
Status NcclChannel::end_step(uint32_t /*num_messages*/) {
  if (!is_in_step_) return {};
  is_in_step_ = false;
  return steps_.end();
}

Status NcclChannel::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void NcclChannel::abort() {
  end(unavailable("what a GPU waited for was given up"));
}

// The first reason counts, and is there before anything ends because of it.
void NcclChannel::end(const Status& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!status_.ok()) return;
    status_ = reason;
  }
  for (const Lane& lane : lanes_) lane.communicator->abort();
}

void NcclChannel::look() {
  if (steps_.is_late(steady_clock().now())) {
    const auto limit = std::chrono::duration_cast<std::chrono::milliseconds>(steps_.limit());
    return end(deadline_exceeded(
        fmt::format("a step over NCCL has not ended within {} ms", limit.count())));
  }
  for (const Lane& lane : lanes_) {
    const Status noticed = lane.communicator->check();
    if (!noticed.ok()) return end(noticed);
  }
}

}  // namespace lamina::nccl
