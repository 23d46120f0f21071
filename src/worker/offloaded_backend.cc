#include "worker/offloaded_backend.h"

#include <fmt/format.h>

#include "wire/slots.h"

namespace lamina {

OffloadedBackend::OffloadedBackend(std::vector<AttentionPeer> peers)
    : peers_(std::move(peers)), stats_(peers_.size()) {}

void OffloadedBackend::abort() {
  for (AttentionPeer& peer : peers_) peer.endpoint->abort();
}

WireStats OffloadedBackend::wire_stats_of(std::string_view peer_name) const {
  WireStats sum;
  for (size_t i = 0; i < peers_.size(); ++i) {
    if (peers_[i].name != peer_name) continue;
    sum.bytes_sent += stats_[i].bytes_sent;
    sum.bytes_received += stats_[i].bytes_received;
  }
  return sum;
}

std::vector<BlockRange> OffloadedBackend::blocks_of_peers() const {
  std::vector<BlockRange> blocks;
  blocks.reserve(peers_.size());
  for (const AttentionPeer& peer : peers_) blocks.push_back(peer.blocks);
  return blocks;
}

Status OffloadedBackend::send_plan(size_t peer_idx,
                                   const wire::AttentionPlan& plan,
                                   uint64_t epoch,
                                   int32_t num_layers) {
  encoded_plan_.resize(wire::encoded_bytes(plan));
  wire::encode_plan(plan, epoch, encoded_plan_);
  stats_[peer_idx].bytes_sent += encoded_plan_.size();
  const Status sent = peers_[peer_idx].endpoint->put(
      wire::slot_of(wire::MessageKind::kPlan, plan.micro_batch, 0),
      encoded_plan_,
      wire::sequence_number(plan.step, 0, static_cast<uint32_t>(num_layers)));
  return sent.ok() ? sent : about(peer_idx, sent);
}

Status OffloadedBackend::about(size_t peer_idx, const Status& status) const {
  return {status.code(),
          fmt::format("attention worker {}: {}", peers_[peer_idx].name, status.message())};
}

}  // namespace lamina
