#include "transport/host_endpoint.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>

#include "base/check.h"
#include "base/log.h"

namespace lamina {
namespace {

// Whatever a caller asks for: beyond this a spin only takes the core from the peer it waits for.
constexpr Duration kMaxSpin = std::chrono::milliseconds(1);
// A sleep ends at least this often, so that a peer that died without a word is noticed.
constexpr Duration kMaxNap = std::chrono::milliseconds(50);

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Between two polls of a spin: leave the memory bus alone, and now and then the core, which the
// peer may be waiting for.
void relax(uint32_t round) {
  constexpr uint32_t kPausesPerRound = 8;
  constexpr uint32_t kRoundsPerYield = 4;
  for (uint32_t i = 0; i < kPausesPerRound; ++i) cpu_pause();
  if (round % kRoundsPerYield == kRoundsPerYield - 1) ::sched_yield();
}

}  // namespace

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
  const Clock& clock = steady_clock();
  const TimePoint spin_end =
      std::min(clock.now() + std::min(policy.spin, kMaxSpin), deadline.when());
  PollResult result = poll(slot, seq);
  for (uint32_t round = 0; result == PollResult::kPending && clock.now() < spin_end; ++round) {
    relax(round);
    result = poll(slot, seq);
  }
  while (result == PollResult::kPending) {
    const Duration left = deadline.remaining(clock);
    if (left == Duration::zero()) {
      return deadline_exceeded(
          fmt::format("peer {}: no message {} in slot {} in time", peer_.id, seq, slot));
    }
    block(slot, seq, std::min(left, kMaxNap));
    result = poll(slot, seq);
  }
  return result == PollResult::kReady ? Status() : down_status();
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
