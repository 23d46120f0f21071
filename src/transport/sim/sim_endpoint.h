// SimEndpoint: an endpoint between state machines of one thread, for a discrete-event simulation.
// Made by SimNetwork::connect(), used as any other: commits and polls happen at the local time of
// its host. Nothing may block on it: wait() is a CHECK failure unless its answer is there already,
// wait_any() always. Confined to the simulation's thread, abort() included.
#pragma once

#include <memory>
#include <vector>

#include "transport/endpoint.h"
#include "transport/sim/sim_link.h"

namespace lamina {

class SimNetwork;

class SimEndpoint final : public Endpoint {
 public:
  SimEndpoint(const EndpointConfig& config, SimNetwork& network, SimLink& link, SimLink::Side side);
  SimEndpoint(const SimEndpoint&) = delete;
  SimEndpoint& operator=(const SimEndpoint&) = delete;
  // The peer notices, as when a process closes its socket.
  ~SimEndpoint() override;

  std::span<std::byte> stage(SlotIdx slot, size_t size_bytes) override;
  Status commit(SlotIdx slot, size_t size_bytes, uint64_t seq) override;
  PollResult poll(SlotIdx slot, uint64_t seq) override;
  Status wait(SlotIdx slot, uint64_t seq, Deadline deadline, WaitPolicy policy) override;
  [[nodiscard]] std::span<const std::byte> payload(SlotIdx slot) const override;
  [[nodiscard]] uint64_t received_seq(SlotIdx slot) const override;
  void abort() override;
  void fence_peer() override;
  [[nodiscard]] PeerId peer() const override { return peer_; }

  [[nodiscard]] SimLink& link() const { return link_; }

 private:
  // Pages that no message reaches cost nothing.
  struct Memory {
    explicit Memory(size_t capacity_bytes)
        : bytes(std::make_unique_for_overwrite<std::byte[]>(capacity_bytes)),
          capacity(capacity_bytes) {}
    std::unique_ptr<std::byte[]> bytes;
    size_t capacity;
  };
  struct Sent {
    Memory memory;
    size_t staged_bytes = 0;
    uint64_t seq = 0;
  };
  struct Received {
    Memory memory;
    size_t size_bytes = 0;
    uint64_t seq = 0;
    bool was_seen = false;  // a poll said kReady
  };

  [[nodiscard]] SimHost& host() const { return link_.host(side_); }
  [[nodiscard]] Status down_status() const;
  void take(const SimMessage& message);

  PeerId peer_;
  SimNetwork& network_;
  SimLink& link_;
  SimLink::Side side_;
  std::vector<Sent> sent_;
  std::vector<Received> received_;
  bool aborted_ = false;
  bool fenced_ = false;
};

}  // namespace lamina
