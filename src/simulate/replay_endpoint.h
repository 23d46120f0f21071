// ReplayEndpoint: an endpoint that keeps what it sends for the next session, and once puts what the
// session before sent in the place of a message of its own: of the same link, slot and sequence
// number, so that nothing but the epoch in its header, and perhaps its content, tells it from the
// one that is awaited. No transport lets that happen, for every session has links of its own; the
// header's epoch is there in case one does. Confined to the simulation's thread.
#pragma once

#include <compare>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "transport/endpoint.h"
#include "transport/sim/sim_host.h"
#include "wire/messages.h"

namespace lamina::simulate {

// What one session sends and gets of old messages; outlives its endpoints' use.
struct Replay {
  struct Place {
    uint64_t from = 0;  // PeerId::id
    uint64_t to = 0;
    SlotIdx slot = 0;
    uint64_t seq = 0;

    friend auto operator<=>(const Place&, const Place&) = default;
  };
  using Messages = std::map<Place, std::vector<std::byte>>;

  bool keeps_sent = false;
  Messages sent;
  const Messages* old = nullptr;  // of the session before
  // The first of this kind from then on is replaced.
  TimePoint from = TimePoint::max();
  wire::MessageKind kind = wire::MessageKind::kStep;
  std::optional<wire::MessageHeader> replayed;
};

class ReplayEndpoint final : public Endpoint {
 public:
  // `config` is that of `inner`; `host` and `replay` outlive the endpoint's use.
  ReplayEndpoint(std::unique_ptr<Endpoint> inner,
                 const EndpointConfig& config,
                 const SimHost& host,
                 Replay& replay);

  std::span<std::byte> stage(SlotIdx slot, size_t size_bytes) override;
  Status commit(SlotIdx slot, size_t size_bytes, uint64_t seq) override;
  PollResult poll(SlotIdx slot, uint64_t seq) override { return inner_->poll(slot, seq); }
  Status wait(SlotIdx slot, uint64_t seq, Deadline deadline, WaitPolicy policy) override {
    return inner_->wait(slot, seq, deadline, policy);
  }
  [[nodiscard]] std::span<const std::byte> payload(SlotIdx slot) const override {
    return inner_->payload(slot);
  }
  [[nodiscard]] uint64_t received_seq(SlotIdx slot) const override {
    return inner_->received_seq(slot);
  }
  void abort() override { inner_->abort(); }
  void fence_peer() override { inner_->fence_peer(); }
  [[nodiscard]] PeerId peer() const override { return inner_->peer(); }

 private:
  [[nodiscard]] const std::vector<std::byte>* old_message(const Replay::Place& place) const;

  std::unique_ptr<Endpoint> inner_;
  uint64_t self_id_;
  std::vector<size_t> capacities_;
  const SimHost& host_;
  Replay& replay_;
  std::vector<std::span<std::byte>> staged_;  // of each slot
};

}  // namespace lamina::simulate
