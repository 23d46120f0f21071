#include "plan/pipeline_model.h"

#include <algorithm>

namespace lamina {

double layer_period_s(const Rotation& rotation, const LayerTimes& times) {
  const double n = rotation.num_micro_batches;
  const double alone_s =
      times.wire_s +
      std::max(times.model_s + times.rest_s, times.lead_s + times.attention_s - times.kv_wire_s);
  return std::max({n * times.attention_s, n * times.model_s / rotation.num_replicas, alone_s});
}

LayerTimes layer_times(const LayerCosts& costs, int32_t num_tokens, int32_t num_micro_batches) {
  const double share = 1.0 / num_micro_batches;
  const double model_s = costs.slice_base_s + costs.slice_per_token_s * num_tokens * share;
  return {.model_s = model_s,
          .lead_s = costs.lead_share * model_s,
          .attention_s = costs.attention_s * share,
          .rest_s = costs.rest_s * share,
          .wire_s = costs.wire_s};
}

int32_t choose_micro_batches(const LayerCosts& costs,
                             int32_t num_tokens,
                             int32_t num_replicas,
                             int32_t most) {
  constexpr double kWorthwhile = 0.95;
  int32_t best = 1;
  double best_period = 0;
  // All sequences get a token in one period, however they are cut.
  for (int32_t n = 1; n <= std::min(most, std::max(num_tokens, 1)); ++n) {
    const double period = layer_period_s({.num_micro_batches = n, .num_replicas = num_replicas},
                                         layer_times(costs, num_tokens, n));
    if (n > 1 && period >= kWorthwhile * best_period) continue;
    best = n;
    best_period = period;
  }
  return best;
}

}  // namespace lamina
