#include "transport/tcp/frame.h"

#include <fmt/format.h>

#include <bit>

namespace lamina {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian");

FrameReceiver::FrameReceiver(std::span<const size_t> capacities)
    : memory_(capacities), last_seqs_(capacities.size(), 0) {}

std::span<std::byte> FrameReceiver::want() {
  if (!in_payload_) return std::as_writable_bytes(std::span(&header_, 1)).subspan(done_bytes_);
  return memory_.payload(header_.slot).first(header_.payload_bytes).subspan(done_bytes_);
}

Result<std::optional<FrameHeader>> FrameReceiver::advance(size_t size_bytes) {
  LAMINA_CHECK_LE(size_bytes, want().size());
  done_bytes_ += size_bytes;
  if (!in_payload_) {
    if (done_bytes_ < sizeof(header_)) return std::optional<FrameHeader>();
    LAMINA_RETURN_IF_ERROR(check_header());
    in_payload_ = true;
    done_bytes_ = 0;
  }
  if (done_bytes_ < header_.payload_bytes) return std::optional<FrameHeader>();
  in_payload_ = false;
  done_bytes_ = 0;
  last_seqs_[header_.slot] = header_.seq;
  return std::optional<FrameHeader>(header_);
}

Status FrameReceiver::check_header() const {
  if (header_.magic != kFrameMagic) {
    return data_loss(fmt::format("frame has magic {:#x}", header_.magic));
  }
  if (header_.slot >= last_seqs_.size()) {
    return data_loss(
        fmt::format("frame for slot {}, there are {}", header_.slot, last_seqs_.size()));
  }
  const size_t capacity = memory_.payload(header_.slot).size();
  if (header_.payload_bytes > capacity) {
    return data_loss(fmt::format("frame of {} bytes for slot {} of {} bytes",
                                 header_.payload_bytes,
                                 header_.slot,
                                 capacity));
  }
  if (header_.seq <= last_seqs_[header_.slot]) {
    return data_loss(fmt::format("frame with sequence number {} in slot {} after {}",
                                 header_.seq,
                                 header_.slot,
                                 last_seqs_[header_.slot]));
  }
  return {};
}

}  // namespace lamina
