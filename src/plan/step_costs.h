// StepCosts: what the parts of a decoding step take at a placement, over all layers, in seconds.
// From a catalogue's figures (analytic_costs.h) or from measurements of a machine (the planner's
// profile). Immutable.
#pragma once

namespace lamina {

// Of one micro-batch. With a network both ways at once, what is sent and what comes back of
// different micro-batches pass each other; of one they follow one another.
struct WireTimes {
  double latency_s = 0;  // round trips of empty messages
  double q_s = 0;
  double kv_s = 0;
  double out_s = 0;
  double carried_s = 0;  // values that move on to the next replica
  double busiest_s = 0;  // of the NIC and direction that carries most

  [[nodiscard]] double total_s() const { return latency_s + q_s + kv_s + out_s + carried_s; }
};

class StepCosts {
 public:
  virtual ~StepCosts() = default;
  // All slices of one micro-batch of `num_tokens` sequences on one replica.
  [[nodiscard]] virtual double model_s(double num_tokens) const = 0;
  // Its attention, of the slowest worker, over `num_positions` cached positions of all of them.
  [[nodiscard]] virtual double attention_s(double num_tokens, double num_positions) const = 0;
  [[nodiscard]] virtual WireTimes wire(double num_tokens) const = 0;
  // Time of the host between two steps in which neither pool works.
  [[nodiscard]] virtual double host_s() const = 0;
  // Share of a slice that runs after q has left.
  [[nodiscard]] virtual double kv_projection_share() const = 0;
};

}  // namespace lamina
