#include "engine/pipeline_controller.h"

#include <fmt/format.h>

#include <algorithm>

namespace lamina {
namespace {

constexpr double kFade = 0.7;  // of what was measured before, at each update
// A change must promise this share of the time: each one disturbs what runs.
constexpr double kWorthwhile = 0.95;
constexpr int32_t kUpdatesBetweenTrials = 30;

// Largest over mean.
double imbalance(std::span<const double> values) {
  double sum = 0;
  double most = 0;
  for (const double value : values) {
    sum += value;
    most = std::max(most, value);
  }
  return sum > 0 ? most * static_cast<double>(values.size()) / sum : 1.0;
}

}  // namespace

PipelineController::PipelineController(const PipelineControllerConfig& config)
    : config_(config), num_active_(config.is_auto ? 1 : config.rotation.num_micro_batches) {}

void PipelineController::add_step(Duration time) {
  step_seconds_ += std::chrono::duration<double>(time).count();
  ++num_steps_;
}

void PipelineController::update(const PipelineSample& sample,
                                Duration busy,
                                std::span<const Scheduler::Load> loads,
                                const Pool& pool) {
  ++num_updates_;
  slices_.fade(kFade);
  slices_.add(sample.decode_slices);
  measure(sample, busy, loads, pool);
  add_bounds(loads.first(static_cast<size_t>(num_active_)), pool);
  int32_t num_tokens = 0;
  for (const Scheduler::Load& load : loads) num_tokens += load.num_sequences;
  const bool knows_enough = sample.num_layers > 0 && sample.decode_slices.count > 0;
  if (config_.is_auto && knows_enough && num_tokens > 0) decide(num_tokens);
  step_seconds_ = 0;
  num_steps_ = 0;
}

void PipelineController::measure(const PipelineSample& sample,
                                 Duration busy,
                                 std::span<const Scheduler::Load> loads,
                                 const Pool& pool) {
  const double busy_s = std::max(std::chrono::duration<double>(busy).count(), 1e-9);
  const double num_layers = config_.num_layers;
  const double per_layer = sample.num_layers > 0 ? 1.0 / static_cast<double>(sample.num_layers) : 0;
  const double model_s = slices_per_layer() * sample.decode_slices.mean();
  const double lead_s =
      sample.num_leads > 0 ? sample.lead_s / static_cast<double>(sample.num_leads) : 0.0;
  times_ = {.model_s = model_s,
            .lead_s = model_s - sample.decode_slices.mean() + lead_s,  // the seam comes before
            .attention_s = sample.attention_s * per_layer,
            .rest_s = sample.rest_s * per_layer,
            // Where everybody is busy nobody sees the wire: what was last seen holds.
            .wire_s = sample.wire_s > 0 ? sample.wire_s : times_.wire_s};
  std::vector<double> sequences;
  std::vector<double> context;
  for (const Scheduler::Load& load : loads.first(static_cast<size_t>(num_active_))) {
    sequences.push_back(load.num_sequences);
    context.push_back(static_cast<double>(load.num_context_tokens));
  }
  const Rotation active{num_active_, config_.rotation.num_replicas};
  stats_ = {.num_micro_batches = num_active_,
            .num_replicas = active.num_replicas,
            .step_seconds = num_steps_ > 0 ? step_seconds_ / static_cast<double>(num_steps_) : 0,
            .bound_seconds = num_layers * layer_period_s(active, times_),
            .model_seconds = num_layers * times_.model_s,
            .attention_seconds = num_layers * times_.attention_s,
            .wire_seconds = num_layers * times_.wire_s,
            .model_idle = std::clamp(1 - sample.slice_s / (busy_s * active.num_replicas), 0.0, 1.0),
            .attention_idle =
                pool.num_workers == 0
                    ? 0.0
                    : std::clamp(1 - sample.worker_busy_s / (busy_s * pool.num_workers), 0.0, 1.0),
            .sequence_imbalance = imbalance(sequences),
            .context_imbalance = imbalance(context)};
}

// PAPER 13's bounds of T_model and T_attention, for the mean micro-batch.
void PipelineController::add_bounds(std::span<const Scheduler::Load> loads, const Pool& pool) {
  double num_tokens = 0;
  double num_positions = 0;
  for (const Scheduler::Load& load : loads) {
    num_tokens += load.num_sequences;
    num_positions += static_cast<double>(load.num_context_tokens);
  }
  const auto count = static_cast<double>(std::max<size_t>(loads.size(), 1));
  const double kv_rate = pool.kv_bytes_per_s > 0 ? pool.kv_bytes_per_s : config_.kv_bytes_per_s;
  stats_.model_bound_seconds = model_bound_s(config_.work, config_.rates, num_tokens / count);
  stats_.attention_bound_seconds = attention_bound_s(config_.work, kv_rate, num_positions / count);
}

// A step has one slice more than layers: its first follows the last of the step before without
// attention between (the seam of PAPER 7).
double PipelineController::slices_per_layer() const {
  return (config_.num_layers + 1.0) / config_.num_layers;
}

// What a layer costs with all sequences in one batch.
LayerCosts PipelineController::costs(int32_t num_tokens) const {
  return {.slice_base_s = slices_per_layer() * slices_.intercept(),
          .slice_per_token_s = slices_per_layer() * slices_.slope(),
          .attention_s = times_.attention_s * std::min(num_active_, num_tokens),
          .rest_s = times_.rest_s * std::min(num_active_, num_tokens),
          .lead_share = times_.model_s > 0 ? times_.lead_s / times_.model_s : 0,
          .wire_s = times_.wire_s};
}

void PipelineController::decide(int32_t num_tokens) {
  const int32_t num_replicas = config_.rotation.num_replicas;
  const int32_t most = config_.rotation.num_micro_batches;
  const auto period = [&](const LayerCosts& layer, int32_t n) {
    return layer_period_s({n, num_replicas}, layer_times(layer, num_tokens, n));
  };
  const LayerCosts known = costs(num_tokens);
  const int32_t best = choose_micro_batches(known, num_tokens, num_replicas, most);
  const int32_t current = std::min(num_active_, std::max(num_tokens, 1));
  if (best != current && period(known, best) < kWorthwhile * period(known, current)) {
    num_active_ = best;
    return;
  }
  // Batches of one size do not tell what smaller ones would cost. If it were in proportion, would
  // others be better? Then try.
  if (slices_.slope() > 0 || num_updates_ - last_trial_ < kUpdatesBetweenTrials) return;
  LayerCosts hoped = known;
  hoped.slice_per_token_s = known.slice_base_s * num_active_ / num_tokens;
  hoped.slice_base_s = 0;
  const int32_t trial = choose_micro_batches(hoped, num_tokens, num_replicas, most);
  if (trial == current || period(hoped, trial) >= kWorthwhile * period(hoped, current)) return;
  last_trial_ = num_updates_;
  num_active_ = trial;
}

std::string PipelineController::report() const {
  const PipelineStats& s = stats_;
  return fmt::format(
      "{} micro-batches x {} replicas: {:.2f} ms a step (bound {:.2f}): model {:.2f} (bound "
      "{:.2f}), "
      "attention {:.2f} (bound {:.2f}), wire {:.2f}; idle: model {:.0f} %, attention {:.0f} %; "
      "largest over mean batch: {:.2f} in sequences, {:.2f} in context",
      s.num_micro_batches,
      s.num_replicas,
      1e3 * s.step_seconds,
      1e3 * s.bound_seconds,
      1e3 * s.model_seconds,
      1e3 * s.model_bound_seconds,
      1e3 * s.attention_seconds,
      1e3 * s.attention_bound_seconds,
      1e3 * s.wire_seconds,
      100 * s.model_idle,
      100 * s.attention_idle,
      s.sequence_imbalance,
      s.context_imbalance);
}

}  // namespace lamina
