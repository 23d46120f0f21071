#include "plan/decode_estimate.h"

#include <algorithm>
#include <optional>

#include "plan/pipeline_model.h"
#include "plan/pipeline_schedule.h"

namespace lamina {
namespace {

// Both run until the shorter one ends, each slowed down by the other, then the longer one alone.
PaceFactors paces_side_by_side(const PaceFactors& both, double model_s, double attention_s) {
  const double both_s = std::min(both.slices * model_s, both.attention * attention_s);
  return {.slices = 1 + both_s / model_s * (1 - 1 / both.slices),
          .attention = attention_s > 0 ? 1 + both_s / attention_s * (1 - 1 / both.attention) : 1};
}

// The parts of one placement's step.
class Step {
 public:
  Step(const StepCosts& costs,
       const PlacementSpec& placement,
       int32_t num_layers,
       double num_tokens,
       double context)
      : placement_(placement),
        num_layers_(num_layers),
        context_(context),
        overlap_(placement.overlap && !placement.is_colocated()),
        lead_share_(overlap_ ? 1.0 - costs.kv_projection_share() : 1.0),
        saturated_s_(costs.model_s(num_tokens)),
        model_s_(saturated_s_),
        attention_s_(costs.attention_s(num_tokens, num_tokens * context)),
        slices_(costs.slices(num_tokens)),
        wire_(costs.wire(num_tokens)) {
    const PaceFactors pace =
        placement.num_micro_batches == 1
            ? costs.in_turns(num_tokens)
            : paces_side_by_side(costs.side_by_side(num_tokens), model_s_, attention_s_);
    slices_pace_ = pace.slices;
    model_s_ *= pace.slices;
    attention_s_ *= pace.attention;
  }

  [[nodiscard]] double model_s() const { return model_s_; }
  // Of the slices where one step's follow another's.
  [[nodiscard]] double saturated_s() const { return saturated_s_; }
  [[nodiscard]] double attention_s() const { return attention_s_; }
  [[nodiscard]] const WireTimes& wire() const { return wire_; }
  [[nodiscard]] double period_s() const {
    const bool is_known = slices_ && placement_.num_replicas == 1;
    return is_known ? scheduled_s() : bound_s();
  }

 private:
  // For the new token's k and v there is a key each.
  [[nodiscard]] double rest_share() const { return overlap_ && context_ > 0 ? 1 / context_ : 1; }

  [[nodiscard]] double bound_s() const {
    const Rotation rotation = {.num_micro_batches = placement_.num_micro_batches,
                               .num_replicas = placement_.num_replicas};
    const LayerTimes layer = {.model_s = model_s_ / num_layers_,
                              .lead_s = lead_share_ * model_s_ / num_layers_,
                              .attention_s = attention_s_ / num_layers_,
                              .rest_s = rest_share() * attention_s_ / num_layers_,
                              .wire_s = wire_.total_s() / num_layers_,
                              .kv_wire_s = overlap_ ? wire_.kv_s / num_layers_ : 0};
    return num_layers_ * layer_period_s(rotation, layer);
  }

  [[nodiscard]] double scheduled_s() const {
    const double latency_s = wire_.latency_s / num_layers_;
    const double send_s = (overlap_ ? wire_.q_s : wire_.q_s + wire_.kv_s) / num_layers_;
    return scheduled_step_s({.first_s = slices_pace_ * slices_->first_s,
                             .layer_s = slices_pace_ * slices_->layer_s,
                             .last_s = slices_pace_ * slices_->last_s,
                             .lead_share = lead_share_,
                             .attention_s = attention_s_ / num_layers_,
                             .rest_s = rest_share() * attention_s_ / num_layers_,
                             .send_s = latency_s / 2 + send_s,
                             .reply_s = latency_s / 2 + wire_.out_s / num_layers_,
                             .engine_s = latency_s},
                            num_layers_,
                            placement_.num_micro_batches);
  }

  const PlacementSpec& placement_;
  int32_t num_layers_;
  double context_;
  bool overlap_;  // attention waits for q alone
  double lead_share_;
  double saturated_s_;
  double model_s_;
  double attention_s_;
  double slices_pace_ = 1;
  std::optional<SliceTimes> slices_;
  WireTimes wire_;
};

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
  const Step parts(costs, placement, num_layers, num_sequences / n, context);
  const double busiest_s = parts.wire().busiest_s;
  StepEstimate step = {.num_tokens = num_sequences / n,
                       .model_s = parts.model_s(),
                       .attention_s = parts.attention_s(),
                       .wire_s = parts.wire().total_s()};
  step.step_s = std::max(parts.period_s(), n * busiest_s);
  const double saturated_s = n * parts.saturated_s() / replicas;
  if (saturated_s > step.step_s) {
    step.step_s = saturated_s;
    step.model_s = parts.saturated_s();
  }
  step.step_s += costs.host_s();
  step.tokens_per_s = num_sequences / step.step_s;
  step.model_busy = n * step.model_s / replicas / step.step_s;
  step.attention_busy = n * step.attention_s / step.step_s;
  step.network_busy = n * busiest_s / step.step_s;
  step.limit = limit_of(n, replicas, step, busiest_s);
  return step;
}

}  // namespace lamina
