// A decoding step estimated: from the costs of its parts and how micro-batches, replicas and
// overlap join them (PAPER 7 and 13). Pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "plan/placement_spec.h"
#include "plan/step_costs.h"

namespace lamina {

enum class Limit : uint8_t { kModel, kAttention, kNetwork, kSequence };
// "model", "attention", "network", or "sequence": no pool is always busy.
std::string_view limit_name(Limit limit);

// Times of one micro-batch's step, in seconds.
struct StepEstimate {
  double num_tokens = 0;    // of one micro-batch
  double model_s = 0;       // T_m
  double attention_s = 0;   // T_a
  double wire_s = 0;        // T_w, one after the other
  double step_s = 0;        // TBT: from a token to the next of the same sequence
  double tokens_per_s = 0;  // of all micro-batches
  double model_busy = 0;    // shares of the time, of 1
  double attention_busy = 0;
  double network_busy = 0;
  Limit limit = Limit::kSequence;
};

// `num_sequences` running in all, `context` positions each; they are shared out evenly, the rest of
// a division included, for a planner's batches are means.
StepEstimate estimate_step(const StepCosts& costs,
                           const PlacementSpec& placement,
                           int32_t num_layers,
                           double num_sequences,
                           double context);

}  // namespace lamina
