#include "transport/tcp/tcp_endpoint.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <system_error>

namespace lamina {
namespace {

// A peer that never stops sending must not keep a poll() from returning.
constexpr int kMaxReadsPerPoll = 64;

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK;
}

}  // namespace

TcpEndpoint::TcpEndpoint(const EndpointConfig& config, FileHandle socket)
    : HostEndpoint(config),
      socket_(std::move(socket)),
      send_memory_(config.send_slots, sizeof(FrameHeader)),
      receiver_(config.receive_slots),
      unsent_(config.send_slots.size()) {}

std::span<std::byte> TcpEndpoint::send_memory(SlotIdx slot) {
  for (size_t i = 0; i < num_unsent_; ++i) {
    if (unsent_[(first_unsent_ + i) % unsent_.size()].slot != slot) continue;
    // The caller composes again because the peer acknowledged what it cannot have: it lies.
    num_unsent_ = 0;
    peer_broke(fmt::format("it answered before message in slot {} was sent", slot));
  }
  return send_memory_.payload(slot);
}

void TcpEndpoint::publish(SlotIdx slot, size_t size_bytes, uint64_t seq) {
  const std::span<std::byte> frame = send_memory_.frame(slot, size_bytes);
  const FrameHeader header{.slot = slot, .seq = seq, .payload_bytes = size_bytes};
  std::memcpy(frame.data(), &header, sizeof(header));
  // Never more than one per slot: stage() came before, and saw to it.
  unsent_[(first_unsent_ + num_unsent_) % unsent_.size()] = {.slot = slot, .rest = frame};
  ++num_unsent_;
  send_some();
}

void TcpEndpoint::advance(SlotIdx slot, uint64_t seq) {
  send_some();
  receive_until(slot, seq);
}

WakeSource TcpEndpoint::begin_sleep(SlotIdx /*slot*/) {
  const auto events = static_cast<short>(num_unsent_ > 0 ? POLLIN | POLLOUT : POLLIN);
  return WakeDescriptors{
      .socket = socket_.get(), .socket_events = events, .abort_event = wake_event_.fd()};
}

void TcpEndpoint::revoke() {
  num_unsent_ = 0;
  ::shutdown(socket_.get(), SHUT_RDWR);
  socket_.reset();
}

void TcpEndpoint::send_some() {
  while (num_unsent_ > 0) {
    Unsent& oldest = unsent_[first_unsent_];
    const ssize_t sent =
        ::send(socket_.get(), oldest.rest.data(), oldest.rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) continue;
      // A broken pipe is not the end: what the peer sent before it left is still to be read.
      if (!would_block()) num_unsent_ = 0;
      return;
    }
    oldest.rest = oldest.rest.subspan(static_cast<size_t>(sent));
    if (!oldest.rest.empty()) continue;
    first_unsent_ = (first_unsent_ + 1) % unsent_.size();
    --num_unsent_;
  }
}

void TcpEndpoint::receive_until(SlotIdx slot, uint64_t seq) {
  for (int i = 0; i < kMaxReadsPerPoll && received(slot).seq < seq; ++i) {
    if (!receive_some()) return;
  }
}

bool TcpEndpoint::receive_some() {
  const std::span<std::byte> want = receiver_.want();
  const ssize_t got = ::recv(socket_.get(), want.data(), want.size(), MSG_DONTWAIT);
  if (got < 0) {
    if (errno == EINTR) return true;
    if (!would_block()) {
      peer_left(fmt::format("connection failed: {}", std::generic_category().message(errno)));
    }
    return false;
  }
  if (got == 0) {
    peer_left(receiver_.is_mid_frame() ? "connection closed in the middle of a message"
                                       : "it closed the connection");
    return false;
  }
  const Result<std::optional<FrameHeader>> frame = receiver_.advance(static_cast<size_t>(got));
  if (!frame.ok()) {
    peer_broke(frame.status().message());
    return false;
  }
  if (frame->has_value()) {
    received((*frame)->slot) = {.seq = (*frame)->seq, .size_bytes = (*frame)->payload_bytes};
  }
  return true;
}

}  // namespace lamina
