#include "planner/profile/profiled_costs.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace lamina::planner {

ProfiledCosts::ProfiledCosts(const ModelWork& model,
                             const PlacementSpec& placement,
                             const KvPartition& partition,
                             const ProfileFit& fit,
                             const SharedMachine& shared)
    : model_(model), placement_(placement), fit_(fit), shared_(shared) {
  if (placement.tensor_parallel > 1) {
    throw Error(StatusCode::kUnimplemented,
                "a profile has not measured tensor-parallel ranks: only one rank is predicted");
  }
  if (model.expert_bytes > 0 && !fit.has_slices_of(model.name)) {
    throw Error(StatusCode::kUnimplemented,
                fmt::format("the profile does not say what the experts of {} take: `lamina profile "
                            "{} --slices` measures its slices whole",
                            model.name,
                            model.name));
  }
  if (!placement.is_colocated() && !fit.has_round_trips()) {
    throw Error(StatusCode::kUnimplemented,
                "the profile has no round trips: it is of one GPU, and says nothing of attention "
                "on another (`lamina profile --attention-device`)");
  }
  const int32_t workers = placement.is_colocated() ? 1 : placement.num_attention_workers;
  for (int32_t i = 0; i < workers; ++i) {
    largest_share_ = std::max(largest_share_, partition.share_of(i));
  }
}

double ProfiledCosts::model_s(double num_tokens) const {
  if (fit_.has_slices_of(model_.name)) return fit_.slices_s(num_tokens);
  double seconds = 0;
  for (const ProductShape& product : model_.products) {
    seconds += product.count * fit_.product_s(num_tokens,
                                              static_cast<double>(product.outputs),
                                              static_cast<double>(product.inputs));
  }
  return seconds;
}

std::optional<SliceTimes> ProfiledCosts::slices(double num_tokens) const {
  if (!fit_.has_slices_of(model_.name)) return std::nullopt;
  return fit_.each_slice_s(num_tokens, model_.num_layers);
}

PaceFactors ProfiledCosts::in_turns(double num_tokens) const {
  if (shared_.has_both) return fit_.in_turns(num_tokens);
  if (!fit_.has_slices_of(model_.name)) return {};
  return {.slices = fit_.rested_pace(num_tokens)};
}

double ProfiledCosts::attention_s(double num_tokens, double num_positions) const {
  if (num_tokens <= 0) return 0;
  const double positions = num_tokens * model_.attended_positions(num_positions / num_tokens);
  const double layer_s = fit_.attention_s(
      num_tokens, positions, largest_share_ * model_.num_kv_heads, model_.head_dim);
  return model_.num_layers * layer_s * shared_.workers_per_device;
}

WireTimes ProfiledCosts::wire(double num_tokens) const {
  if (placement_.is_colocated()) return {};
  const double latency_s = fit_.round_trip_s(0);
  // Half a round trip is one way; every byte costs the same in each.
  const double byte_s = (fit_.round_trip_s(1e6) - latency_s) / 2e6;
  const double tokens = num_tokens * model_.num_layers;
  const double carried = placement_.num_replicas > 1 ? model_.carried_bytes : 0;
  return {
      .latency_s = model_.num_layers * latency_s,
      .q_s = tokens * model_.q_bytes * byte_s,
      .kv_s = tokens * model_.kv_bytes * byte_s,
      .out_s = tokens * model_.out_bytes * byte_s,
      .carried_s = tokens * carried * byte_s,
      .busiest_s =
          tokens * std::max(model_.q_bytes + model_.kv_bytes + carried, model_.out_bytes) * byte_s};
}

}  // namespace lamina::planner
