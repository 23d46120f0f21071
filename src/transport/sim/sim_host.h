// SimHost: one incarnation of a simulated process, and its local time. A host that computes is
// ahead of the network's time: what it commits leaves, and what it polls is seen, at its own time.
// State machines take it as their Clock. Made by SimNetwork. Confined to the simulation's thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "base/clock.h"

namespace lamina {

// Something that a poll may notice from `at` on. `order` numbers what happens in a simulation.
struct SimEvent {
  TimePoint at = TimePoint::max();  // max: never
  uint64_t order = 0;
};

class SimHost final : public Clock {
 public:
  SimHost(std::string name, const Clock& network) : name_(std::move(name)), network_(network) {}
  SimHost(const SimHost&) = delete;
  SimHost& operator=(const SimHost&) = delete;
  ~SimHost() override = default;

  [[nodiscard]] const std::string& name() const { return name_; }
  // Local time; never behind the network's.
  [[nodiscard]] TimePoint now() const override { return std::max(local_now_, network_.now()); }
  // The host is busy until then, or that much longer. Time only grows.
  void advance_to(TimePoint local_now) {
    LAMINA_CHECK_GE(local_now.time_since_epoch().count(), now().time_since_epoch().count());
    local_now_ = local_now;
  }
  void compute(Duration busy) { advance_to(now() + busy); }

  // The end of the host by SimNetwork::kill().
  [[nodiscard]] SimEvent death() const { return death_; }
  [[nodiscard]] bool is_dead() const { return now() >= death_.at; }

  // For SimNetwork and SimLink. A poll looks at everything: it notices each event that happened
  // before, in the simulation and in local time.
  void look(uint64_t order) { last_look_ = {.at = now(), .order = order}; }
  [[nodiscard]] bool has_noticed(SimEvent event) const {
    return event.order < last_look_.order && event.at <= last_look_.at;
  }
  void die(SimEvent death) {
    if (death.at < death_.at) death_ = death;
  }

 private:
  std::string name_;
  const Clock& network_;
  TimePoint local_now_ = TimePoint::min();
  SimEvent last_look_{.at = TimePoint::min(), .order = 0};
  SimEvent death_;
};

}  // namespace lamina
