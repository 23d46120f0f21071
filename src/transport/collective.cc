#include "transport/collective.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace lamina {
namespace {

// Two slots in turn: a rank that sends exchange n + 2 has received the others' n + 1, which they
// sent after they were done with n.
constexpr SlotIdx kNumSlots = 2;

EndpointConfig endpoint_config(const GroupConfig& config, int32_t peer) {
  const std::vector<size_t> slots(kNumSlots, config.max_bytes);
  return {.kind = config.kind,
          .self = {.id = static_cast<uint64_t>(config.rank) + 1, .epoch = config.epoch},
          .peer = {.id = static_cast<uint64_t>(peer) + 1, .epoch = config.epoch},
          .receive_slots = slots,
          .send_slots = slots,
          .listens = config.rank < peer,
          .host = config.host};
}

}  // namespace

Collective::Collective(int32_t rank, std::vector<std::unique_ptr<Endpoint>> peers, Duration timeout)
    : rank_(rank), peers_(std::move(peers)), timeout_(timeout), all_(peers_.size()) {
  LAMINA_CHECK(rank >= 0 && rank < num_ranks());
}

Status Collective::exchange(std::span<const std::byte> mine) {
  const uint64_t seq = ++num_exchanges_;
  const auto slot = static_cast<SlotIdx>(seq % kNumSlots);
  for (const auto& peer : peers_) {
    if (peer == nullptr) continue;
    LAMINA_RETURN_IF_ERROR(peer->put(slot, mine, seq));
    bytes_sent_ += mine.size();
  }
  const Deadline deadline = Deadline::after(timeout_);
  for (size_t r = 0; r < peers_.size(); ++r) {
    if (peers_[r] == nullptr) {
      all_[r] = mine;
      continue;
    }
    LAMINA_RETURN_IF_ERROR(peers_[r]->wait(slot, seq, deadline, WaitPolicy{}));
    all_[r] = peers_[r]->payload(slot);
    if (all_[r].size() == mine.size() && peers_[r]->received_seq(slot) == seq) continue;
    return data_loss(fmt::format("rank {} sent {} bytes in exchange {}, expected {} in {}",
                                 r,
                                 all_[r].size(),
                                 peers_[r]->received_seq(slot),
                                 mine.size(),
                                 seq));
  }
  return {};
}

void Collective::abort() {
  for (const auto& peer : peers_) {
    if (peer != nullptr) peer->abort();
  }
}

PendingGroup::PendingGroup(const GroupConfig& config) : config_(config) {
  LAMINA_CHECK(config.rank >= 0 && config.rank < config.num_ranks);
  for (int32_t peer = 0; peer < config.num_ranks; ++peer) {
    pending_.push_back(peer == config.rank ? nullptr
                                           : prepare_endpoint(endpoint_config(config, peer)));
  }
}

const std::string& PendingGroup::blob_for(int32_t peer) const {
  return pending_[static_cast<size_t>(peer)]->blob();
}

std::unique_ptr<Collective> PendingGroup::complete(std::span<const std::string> blobs,
                                                   Deadline deadline) {
  LAMINA_CHECK_EQ(blobs.size(), pending_.size());
  // In the order of pairs that every rank agrees on, since completing may wait for the other side.
  std::vector<std::unique_ptr<Endpoint>> peers(pending_.size());
  for (size_t peer = 0; peer < pending_.size(); ++peer) {
    if (pending_[peer] != nullptr) peers[peer] = pending_[peer]->complete(blobs[peer], deadline);
  }
  return std::make_unique<Collective>(config_.rank, std::move(peers), config_.timeout);
}

std::vector<std::unique_ptr<Collective>> connect_threads(int32_t num_ranks,
                                                         size_t max_bytes,
                                                         Duration timeout) {
  std::vector<PendingGroup> pending;
  pending.reserve(static_cast<size_t>(num_ranks));
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    pending.emplace_back(GroupConfig{
        .rank = rank, .num_ranks = num_ranks, .max_bytes = max_bytes, .timeout = timeout});
  }
  std::vector<std::vector<std::string>> blobs(pending.size(),
                                              std::vector<std::string>(pending.size()));
  for (size_t from = 0; from < pending.size(); ++from) {
    for (size_t to = 0; to < pending.size(); ++to) {
      if (from != to) blobs[to][from] = pending[from].blob_for(static_cast<int32_t>(to));
    }
  }
  std::vector<std::unique_ptr<Collective>> ranks;
  ranks.reserve(pending.size());
  for (size_t rank = 0; rank < pending.size(); ++rank) {
    ranks.push_back(pending[rank].complete(blobs[rank], Deadline::after(timeout)));
  }
  return ranks;
}

}  // namespace lamina
