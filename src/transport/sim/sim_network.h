// SimNetwork: hosts, links and virtual time of a discrete-event simulation: endpoints between state
// machines of one thread, from a seed. The same seed and the same calls give the same history; each
// link draws from its own numbers, so that traffic on one does not change another. The simulation
// runs as
//
//   while (auto next = earliest of next_event_time(host), over hosts, and of their timers)
//     network.advance_to(next time); run that host until all that it awaits is pending
//
// where a host that computes moves its own time ahead (SimHost::compute). What is under way is
// bounded: four messages for each slot of a link. Confined to one thread.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "transport/endpoint.h"
#include "transport/sim/sim_endpoint.h"
#include "transport/sim/sim_host.h"
#include "transport/sim/sim_link.h"

namespace lamina {

// Outlives the endpoints that it made.
class SimNetwork final : public Clock {
 public:
  explicit SimNetwork(uint64_t seed) : seeds_(seed) {}
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;
  // CHECKs that no endpoint is left.
  ~SimNetwork() override;

  // Global time; begins at zero and only grows.
  [[nodiscard]] TimePoint now() const override { return now_; }
  void advance_to(TimePoint now);

  // One for each incarnation of a process; lives as long as the network.
  SimHost& add_host(std::string name);

  struct Pair {
    std::unique_ptr<SimEndpoint> a;
    std::unique_ptr<SimEndpoint> b;
  };
  // At once, with no exchange of blobs. CHECKs that the configurations fit each other; their kinds
  // and addresses do not matter.
  Pair connect(SimHost& host_a,
               const EndpointConfig& config_a,
               SimHost& host_b,
               const EndpointConfig& config_b,
               const SimLinkConfig& link);

  // Faults, from now on or later. One that a host's local time has already passed may come too late
  // for what was seen meanwhile, so they are best made known ahead.
  //
  // Everything of the host ends at `at`: what it sent before still arrives, and peers see kDown
  // after their links' detection delay.
  void kill(SimHost& host, TimePoint at);
  // The link of an endpoint ends at `at`: both sides see kDown, and what is under way is lost.
  void cut(const SimEndpoint& endpoint, TimePoint at);

  // When a poll of the host may next have another result than its last one: the earliest arrival,
  // or end of a peer or link, that it has not noticed, but not before its local time. An event is
  // noticed by any poll of the host at or after its time, of whatever endpoint: a host polls all
  // that it awaits before it rests. Nothing for a host that will be dead by then.
  [[nodiscard]] std::optional<TimePoint> next_event_time(const SimHost& host) const;
  // The earliest of all hosts, and of the deaths to come.
  [[nodiscard]] std::optional<TimePoint> next_event_time() const;

  // How often a slot was overwritten before its receiver can have been done with it: the earlier
  // message was still under way, or had arrived and never been polled ready. Bugs of the protocol
  // under test; the first one in words.
  [[nodiscard]] uint64_t num_violations() const { return record_.num_violations; }
  [[nodiscard]] const std::string& first_violation() const { return record_.first_violation; }

  // For SimEndpoint.
  void look(SimHost& host) { host.look(record_.next_order()); }
  void add_violation(std::string text) { record_.add_violation(std::move(text)); }
  void release(SimLink& link, SimLink::Side side);

 private:
  struct LinkEnd {
    const SimLink* link = nullptr;
    SimLink::Side side = 0;
  };

  Rng seeds_;
  TimePoint now_{};
  SimRecord record_;
  std::list<SimHost> hosts_;
  std::list<SimLink> links_;
  // By host, for next_event_time(), of which a simulation asks most.
  std::unordered_map<const SimHost*, std::vector<LinkEnd>> ends_;
};

}  // namespace lamina
