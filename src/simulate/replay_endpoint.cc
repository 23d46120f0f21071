#include "simulate/replay_endpoint.h"

#include <algorithm>

namespace lamina::simulate {

ReplayEndpoint::ReplayEndpoint(std::unique_ptr<Endpoint> inner,
                               const EndpointConfig& config,
                               const SimHost& host,
                               Replay& replay)
    : inner_(std::move(inner)),
      self_id_(config.self.id),
      capacities_(config.send_slots),
      host_(host),
      replay_(replay),
      staged_(capacities_.size()) {}

std::span<std::byte> ReplayEndpoint::stage(SlotIdx slot, size_t size_bytes) {
  return staged_[slot] = inner_->stage(slot, size_bytes);
}

Status ReplayEndpoint::commit(SlotIdx slot, size_t size_bytes, uint64_t seq) {
  const Replay::Place place{.from = self_id_, .to = peer().id, .slot = slot, .seq = seq};
  if (replay_.keeps_sent) {
    const std::span<const std::byte> message = staged_[slot].first(size_bytes);
    replay_.sent[place].assign(message.begin(), message.end());
  }
  const std::vector<std::byte>* old = old_message(place);
  if (old == nullptr) return inner_->commit(slot, size_bytes, seq);
  replay_.replayed = *wire::decode_header(*old);
  std::copy(old->begin(), old->end(), inner_->stage(slot, old->size()).begin());
  return inner_->commit(slot, old->size(), seq);
}

// What takes the message's place, if anything does. Another partition may have other capacities.
const std::vector<std::byte>* ReplayEndpoint::old_message(const Replay::Place& place) const {
  if (replay_.old == nullptr || replay_.replayed || host_.now() < replay_.from) return nullptr;
  const auto found = replay_.old->find(place);
  if (found == replay_.old->end() || found->second.size() > capacities_[place.slot]) return nullptr;
  const Result<wire::MessageHeader> header = wire::decode_header(found->second);
  const bool is_of_kind = header.ok() && header->kind == static_cast<uint16_t>(replay_.kind);
  return is_of_kind ? &found->second : nullptr;
}

}  // namespace lamina::simulate
