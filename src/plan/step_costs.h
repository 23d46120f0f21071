// StepCosts: what the parts of a decoding step take at a placement, over all layers, in seconds.
// From a catalogue's figures (analytic_costs.h) or from measurements of a machine (the planner's
// profile). Immutable.
#pragma once

#include <optional>

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

// The slices of one micro-batch's step, one by one.
struct SliceTimes {
  double first_s = 0;  // before the first layer's attention
  double layer_s = 0;  // each of those between two layers
  double last_s = 0;   // after the last one's, and sampling
};

// What slices and attention take in a step, of what each takes by itself over and over: more than 1
// where they share a machine, less where a device that has rested is faster.
struct PaceFactors {
  double slices = 1;
  double attention = 1;
};

class StepCosts {
 public:
  virtual ~StepCosts() = default;
  // All slices of one micro-batch of `num_tokens` sequences on one replica.
  [[nodiscard]] virtual double model_s(double num_tokens) const = 0;
  // The same one by one; nothing where only their sum is known.
  [[nodiscard]] virtual std::optional<SliceTimes> slices(double /*num_tokens*/) const { return {}; }
  // Its attention, of the slowest worker, over `num_positions` cached positions of all of them.
  [[nodiscard]] virtual double attention_s(double num_tokens, double num_positions) const = 0;
  // One micro-batch's slices and attention take turns, and each begins where it has rested; several
  // keep both pools busy, which get in each other's way.
  [[nodiscard]] virtual PaceFactors in_turns(double /*num_tokens*/) const { return {}; }
  [[nodiscard]] virtual PaceFactors side_by_side(double /*num_tokens*/) const { return {}; }
  [[nodiscard]] virtual WireTimes wire(double num_tokens) const = 0;
  // Time of the host between two steps in which neither pool works.
  [[nodiscard]] virtual double host_s() const = 0;
  // Share of a slice that runs after q has left.
  [[nodiscard]] virtual double kv_projection_share() const = 0;
};

}  // namespace lamina
