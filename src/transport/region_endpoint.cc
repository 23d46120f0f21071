#include "transport/region_endpoint.h"

#include <fmt/format.h>

namespace lamina {

RegionEndpoint::RegionEndpoint(const EndpointConfig& config,
                               std::unique_ptr<RegionMemory> own,
                               std::unique_ptr<RegionMemory> peers)
    : HostEndpoint(config),
      send_capacities_(config.send_slots),
      own_(std::move(own)),
      peers_(std::move(peers)),
      receive_(own_->data(), config.receive_slots),
      send_(peers_->data(), send_capacities_) {}

RegionEndpoint::~RegionEndpoint() {
  tell_peer_we_left();
}

void RegionEndpoint::publish(SlotIdx slot, size_t size_bytes, uint64_t seq) {
  SlotHeader& header = send_.slot(slot);
  header.size_bytes.store(size_bytes, std::memory_order_relaxed);
  header.seq.store(seq, std::memory_order_release);
  send_.ring(slot);
}

void RegionEndpoint::advance(SlotIdx slot, uint64_t /*seq*/) {
  // In this order: a peer that puts and then leaves has its message read.
  const bool peer_has_left = receive_.header().closed.load(std::memory_order_acquire) != 0;
  read_slot(slot);
  if (peer_has_left) [[unlikely]] {
    read_all_slots();
    peer_left("it closed the endpoint");
  }
}

void RegionEndpoint::check_peer() {
  if (!is_up() || peers_->owner_lives()) return;
  read_all_slots();
  peer_left("its process is gone");
}

void RegionEndpoint::revoke() {
  tell_peer_we_left();
  own_->revoke();
  peers_->revoke();
  send_ = SlotRegion(peers_->data(), send_capacities_);
}

// Each value is loaded once: the peer may change it at any time.
void RegionEndpoint::read_slot(SlotIdx slot) {
  const SlotHeader& header = receive_.slot(slot);
  const uint64_t seq = header.seq.load(std::memory_order_acquire);
  Received& last = received(slot);
  if (seq == last.seq) return;
  const uint64_t size_bytes = header.size_bytes.load(std::memory_order_relaxed);
  if (seq < last.seq || size_bytes > receive_.payload(slot).size()) [[unlikely]] {
    peer_broke(fmt::format("slot {} of {} bytes: message {} of {} bytes after message {}",
                           slot,
                           receive_.payload(slot).size(),
                           seq,
                           size_bytes,
                           last.seq));
    return;
  }
  last = {.seq = seq, .size_bytes = size_bytes};
}

void RegionEndpoint::read_all_slots() {
  for (SlotIdx slot = 0; slot < num_receive_slots(); ++slot) read_slot(slot);
}

void RegionEndpoint::tell_peer_we_left() {
  send_.header().closed.store(1, std::memory_order_seq_cst);
  send_.ring_all();
}

}  // namespace lamina
