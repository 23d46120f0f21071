#include "transport/sim/sim_endpoint.h"

#include <fmt/format.h>

#include <cstring>

#include "base/check.h"
#include "transport/sim/sim_network.h"

namespace lamina {

SimEndpoint::SimEndpoint(const EndpointConfig& config,
                         SimNetwork& network,
                         SimLink& link,
                         SimLink::Side side)
    : peer_(config.peer), network_(network), link_(link), side_(side) {
  for (const size_t capacity : config.send_slots) sent_.push_back({.memory = Memory(capacity)});
  for (const size_t capacity : config.receive_slots) {
    received_.push_back({.memory = Memory(capacity)});
  }
}

SimEndpoint::~SimEndpoint() {
  network_.release(link_, side_);
}

std::span<std::byte> SimEndpoint::stage(SlotIdx slot, size_t size_bytes) {
  LAMINA_CHECK_LT(slot, sent_.size());
  LAMINA_CHECK_LE(size_bytes, sent_[slot].memory.capacity);
  sent_[slot].staged_bytes = size_bytes;
  return {sent_[slot].memory.bytes.get(), size_bytes};
}

Status SimEndpoint::commit(SlotIdx slot, size_t size_bytes, uint64_t seq) {
  LAMINA_CHECK_LT(slot, sent_.size());
  Sent& sent = sent_[slot];
  LAMINA_CHECK_LE(size_bytes, sent.staged_bytes);
  LAMINA_CHECK_GT(seq, sent.seq);
  if (aborted_ || fenced_ || link_.is_down(side_)) return down_status();
  sent.seq = seq;
  link_.send(side_, slot, {sent.memory.bytes.get(), size_bytes}, seq);
  return {};
}

PollResult SimEndpoint::poll(SlotIdx slot, uint64_t seq) {
  LAMINA_CHECK_LT(slot, received_.size());
  LAMINA_CHECK_GT(seq, 0U);
  network_.look(host());
  if (aborted_ || fenced_) return PollResult::kDown;
  while (const auto message = link_.receive(side_)) take(*message);
  Received& last = received_[slot];
  if (last.seq >= seq) {
    last.was_seen = true;
    return PollResult::kReady;
  }
  return link_.is_down(side_) ? PollResult::kDown : PollResult::kPending;
}

void SimEndpoint::take(const SimMessage& message) {
  Received& last = received_[message.slot];
  if (last.seq > 0 && !last.was_seen) {
    network_.add_violation(
        fmt::format("message {} of slot {} from {} overwrote {}, which {} had not seen",
                    message.seq,
                    message.slot,
                    link_.host(SimLink::other(side_)).name(),
                    last.seq,
                    host().name()));
  }
  if (!message.payload.empty()) {
    std::memcpy(last.memory.bytes.get(), message.payload.data(), message.payload.size());
  }
  last.size_bytes = message.payload.size();
  last.seq = message.seq;
  last.was_seen = false;
}

Status SimEndpoint::wait(SlotIdx slot, uint64_t seq, Deadline /*deadline*/, WaitPolicy /*policy*/) {
  const PollResult result = poll(slot, seq);
  if (result == PollResult::kDown) return down_status();
  LAMINA_CHECK(result == PollResult::kReady,
               fmt::format("{} waits for message {} in slot {}: nothing may block in a simulation",
                           host().name(),
                           seq,
                           slot));
  return {};
}

std::span<const std::byte> SimEndpoint::payload(SlotIdx slot) const {
  LAMINA_CHECK_LT(slot, received_.size());
  if (fenced_) return {};
  return {received_[slot].memory.bytes.get(), received_[slot].size_bytes};
}

uint64_t SimEndpoint::received_seq(SlotIdx slot) const {
  LAMINA_CHECK_LT(slot, received_.size());
  return received_[slot].seq;
}

void SimEndpoint::abort() {
  aborted_ = true;
  link_.stop_receiving(side_);
}

void SimEndpoint::fence_peer() {
  fenced_ = true;
  link_.leave(side_);
}

Status SimEndpoint::down_status() const {
  const char* why = aborted_ ? "was aborted" : fenced_ ? "was fenced" : "is down";
  return unavailable(fmt::format("endpoint of {} to peer {} {}", host().name(), peer_.id, why));
}

}  // namespace lamina
