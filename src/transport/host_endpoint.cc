#include "transport/host_endpoint.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "transport/wait_any.h"

namespace lamina {
HostEndpoint::HostEndpoint(const EndpointConfig& config)
    : peer_(config.peer), received_(config.receive_slots.size()) {
  for (const size_t capacity : config.send_slots) sent_.push_back({.capacity = capacity});
}

std::span<std::byte> HostEndpoint::stage(SlotIdx slot, size_t size_bytes) {
  LAMINA_CHECK_LT(slot, sent_.size());
  LAMINA_CHECK_LE(size_bytes, sent_[slot].capacity);
  sent_[slot].staged_bytes = size_bytes;
  return send_memory(slot).first(size_bytes);
}

Status HostEndpoint::commit(SlotIdx slot, size_t size_bytes, uint64_t seq) {
  LAMINA_CHECK_LT(slot, sent_.size());
  Sent& sent = sent_[slot];
  LAMINA_CHECK_LE(size_bytes, sent.staged_bytes);
  LAMINA_CHECK_GT(seq, sent.seq);
  if (!is_up()) return down_status();
  sent.seq = seq;
  publish(slot, size_bytes, seq);
  return state_ == State::kUp ? Status() : down_status();
}

PollResult HostEndpoint::poll(SlotIdx slot, uint64_t seq) {
  LAMINA_CHECK_LT(slot, received_.size());
  LAMINA_CHECK_GT(seq, 0U);
  if (is_up()) advance(slot, seq);
  if (state_ == State::kBroken || was_aborted()) return PollResult::kDown;
  if (received_[slot].seq >= seq) return PollResult::kReady;
  return state_ == State::kUp ? PollResult::kPending : PollResult::kDown;
}

Status HostEndpoint::wait(SlotIdx slot, uint64_t seq, Deadline deadline, WaitPolicy policy) {
  const AwaitedMessage awaited{.endpoint = this, .slot = slot, .seq = seq};
  if (!wait_any({&awaited, 1}, deadline, policy).ok()) {
    return deadline_exceeded(
        fmt::format("peer {}: no message {} in slot {} in time", peer_.id, seq, slot));
  }
  return poll(slot, seq) == PollResult::kReady ? Status() : down_status();
}

std::span<const std::byte> HostEndpoint::payload(SlotIdx slot) const {
  LAMINA_CHECK_LT(slot, received_.size());
  if (state_ == State::kBroken) return {};
  return receive_memory(slot).first(received_[slot].size_bytes);
}

uint64_t HostEndpoint::received_seq(SlotIdx slot) const {
  LAMINA_CHECK_LT(slot, received_.size());
  return received_[slot].seq;
}

void HostEndpoint::abort() {
  aborted_.store(true, std::memory_order_seq_cst);
  wake();
}

void HostEndpoint::fence_peer() {
  if (fenced_) return;
  fenced_ = true;
  peer_broke("it was fenced");
  revoke();
}

// The first reason is the one that counts; a broken peer is worse than one that left.
void HostEndpoint::go_down(State state, const std::string& reason) {
  if (state_ == State::kUp) {
    down_reason_ = reason;
    log_info("transport: peer {} epoch {} is down: {}", peer_.id, peer_.epoch, reason);
  }
  state_ = std::max(state_, state);
}

Status HostEndpoint::down_status() const {
  if (was_aborted()) return unavailable(fmt::format("endpoint to peer {} was aborted", peer_.id));
  return unavailable(
      fmt::format("peer {} epoch {} is down: {}", peer_.id, peer_.epoch, down_reason_));
}

}  // namespace lamina
