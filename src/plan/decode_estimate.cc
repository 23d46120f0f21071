#include "plan/decode_estimate.h"

#include <algorithm>

#include "plan/pipeline_model.h"

namespace lamina {
namespace {

LayerTimes times_of_layer(const StepEstimate& step,
                          const StepCosts& costs,
                          const WireTimes& wire,
                          bool overlap,
                          double context,
                          double num_layers) {
  // With overlap attention waits for q alone, and for the new token's k and v there is a key each.
  const double lead = overlap ? 1.0 - costs.kv_projection_share() : 1.0;
  const double rest = overlap && context > 0 ? 1.0 / context : 1.0;
  return {.model_s = step.model_s / num_layers,
          .lead_s = lead * step.model_s / num_layers,
          .attention_s = step.attention_s / num_layers,
          .rest_s = rest * step.attention_s / num_layers,
          .wire_s = wire.total_s() / num_layers,
          .kv_wire_s = overlap ? wire.kv_s / num_layers : 0};
}

Limit limit_of(double n, double replicas, const StepEstimate& step, double network_s) {
  const double pools[] = {n * step.model_s / replicas, n * step.attention_s, n * network_s};
  const auto* const most = std::max_element(std::begin(pools), std::end(pools));
  constexpr double kAlways = 0.999;  // busy
  if (*most < kAlways * step.step_s) return Limit::kSequence;
  return static_cast<Limit>(most - std::begin(pools));
}

}  // namespace

std::string_view limit_name(Limit limit) {
  switch (limit) {
    case Limit::kModel:
      return "model";
    case Limit::kAttention:
      return "attention";
    case Limit::kNetwork:
      return "network";
    case Limit::kSequence:
      return "sequence";
  }
  return "unknown";
}

StepEstimate estimate_step(const StepCosts& costs,
                           const PlacementSpec& placement,
                           int32_t num_layers,
                           double num_sequences,
                           double context) {
  const double n = placement.num_micro_batches;
  const double replicas = placement.num_replicas;
  StepEstimate step;
  step.num_tokens = num_sequences / n;
  step.model_s = costs.model_s(step.num_tokens);
  step.attention_s = costs.attention_s(step.num_tokens, step.num_tokens * context);
  const WireTimes wire = costs.wire(step.num_tokens);
  step.wire_s = wire.total_s();
  const bool overlap = placement.overlap && !placement.is_colocated();
  const double period_s = layer_period_s(
      {.num_micro_batches = placement.num_micro_batches, .num_replicas = placement.num_replicas},
      times_of_layer(step, costs, wire, overlap, context, num_layers));
  step.step_s = std::max(num_layers * period_s, n * wire.busiest_s) + costs.host_s();
  step.tokens_per_s = num_sequences / step.step_s;
  step.model_busy = n * step.model_s / replicas / step.step_s;
  step.attention_busy = n * step.attention_s / step.step_s;
  step.network_busy = n * wire.busiest_s / step.step_s;
  step.limit = limit_of(n, replicas, step, wire.busiest_s);
  return step;
}

}  // namespace lamina
