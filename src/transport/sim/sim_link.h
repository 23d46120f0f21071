// SimLink: the wire between two simulated endpoints: which messages are under way in each
// direction, when they arrive, and when each side notices that the other is gone. Behaves as a
// reliable transport over a bad network: what is lost comes later, or the whole link dies. Owned by
// SimNetwork, used by SimEndpoint. Confined to the simulation's thread.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/rng.h"
#include "transport/endpoint.h"
#include "transport/sim/sim_host.h"

namespace lamina {

struct SimLinkConfig {
  // A message arrives latency + bytes / bandwidth + jitter after its commit, later if it was lost.
  // Messages do not wait for each other's bytes.
  Duration latency = std::chrono::microseconds(20);  // > 0
  double bandwidth_bytes_per_us = 1000;              // > 0
  Duration jitter = Duration::zero();                // at most; uniform, drawn for each message
  // Whether messages of different slots may overtake each other. Those of one slot never do.
  bool reorder = false;
  // Of each transmission, to be lost. The first repetition leaves after `retransmit_after`, each
  // further one after twice the time before.
  double loss_probability = 0;
  Duration retransmit_after = std::chrono::milliseconds(1);
  // Of each message, to end the link at the moment at which it would have arrived.
  double death_probability = 0;
  // From a peer's kill to the moment at which this side sees kDown.
  Duration detection_delay = std::chrono::milliseconds(50);
};

// What a simulation counts; one for all its links.
struct SimRecord {
  uint64_t num_events = 0;  // gives each event its order
  // Messages that overwrote an earlier one of their slot before the receiver can have been done
  // with it: bugs of the protocol under test.
  uint64_t num_violations = 0;
  std::string first_violation;

  uint64_t next_order() { return ++num_events; }
  void add_violation(std::string text);
};

struct SimMessage {
  SlotIdx slot = 0;
  uint64_t seq = 0;
  std::vector<std::byte> payload;
  TimePoint sent_at;
  SimEvent arrival;
};

class SimLink {
 public:
  using Side = size_t;  // 0 or 1
  static Side other(Side side) { return 1 - side; }

  SimLink(const SimLinkConfig& config, std::array<SimHost*, 2> hosts, Rng seeds, SimRecord& record);
  SimLink(const SimLink&) = delete;
  SimLink& operator=(const SimLink&) = delete;
  ~SimLink() = default;

  [[nodiscard]] SimHost& host(Side side) const { return *sides_[side].host; }

  // At the local time of `from`, which is not down.
  void send(Side from, SlotIdx slot, std::span<const std::byte> payload, uint64_t seq);
  // A message for `to` that has arrived by its local time, in the order of arrival.
  std::optional<SimMessage> receive(Side to);

  // Whether at `side`'s local time the other is known to be gone, or its own host is dead.
  [[nodiscard]] bool is_down(Side side) const;
  // `side` takes nothing any more.
  void stop_receiving(Side side);
  // Also tells the other, who sees it after everything that was sent before.
  void leave(Side side);
  // Leaves, for the endpoint of `side` is destroyed. True if that was the last of the two.
  [[nodiscard]] bool release(Side side);
  // The link ends for both sides.
  void cut(TimePoint at);

  // The earliest arrival at, or end of the link for, `side` that its host has not noticed.
  [[nodiscard]] std::optional<TimePoint> next_event(Side side) const;

 private:
  // One end, and what is under way to it.
  struct End {
    SimHost* host = nullptr;
    Rng rng{0};                            // of messages to it
    std::vector<SimMessage> under_way;     // ordered by arrival
    std::vector<TimePoint> slot_arrivals;  // the latest of each slot
    TimePoint last_arrival = TimePoint::min();
    SimEvent peer_left;  // when it notices
    bool receives = true;
    bool has_left = false;
    bool is_released = false;
  };

  [[nodiscard]] SimEvent peer_gone(Side side) const;
  TimePoint draw_arrival(End& to, SlotIdx slot, size_t size_bytes, TimePoint sent_at) const;
  void check_overwrite(Side from, SlotIdx slot, uint64_t seq);

  SimLinkConfig config_;
  std::array<End, 2> sides_;
  SimEvent cut_;
  SimRecord& record_;
};

}  // namespace lamina
