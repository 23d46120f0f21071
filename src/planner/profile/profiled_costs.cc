#include "planner/profile/profiled_costs.h"

#include <algorithm>

namespace lamina::planner {

ProfiledCosts::ProfiledCosts(const ModelWork& model,
                             const PlacementSpec& placement,
                             const KvPartition& partition,
                             const ProfileFit& fit,
                             int32_t workers_per_device)
    : model_(model), placement_(placement), fit_(fit), workers_per_device_(workers_per_device) {
  const int32_t workers =
      placement.is_colocated() ? placement.tensor_parallel : placement.num_attention_workers;
  for (int32_t i = 0; i < workers; ++i) {
    largest_share_ = std::max(largest_share_, partition.share_of(i));
  }
}

double ProfiledCosts::model_s(double num_tokens) const {
  double seconds = 0;
  for (const ProductShape& product : model_.products) {
    const double outputs = static_cast<double>(product.outputs) / placement_.tensor_parallel;
    seconds +=
        product.count * fit_.product_s(num_tokens, outputs, static_cast<double>(product.inputs));
  }
  return seconds;
}

double ProfiledCosts::attention_s(double num_tokens, double num_positions) const {
  if (num_tokens <= 0) return 0;
  const double positions = num_tokens * model_.attended_positions(num_positions / num_tokens);
  const double layer_s = fit_.attention_s(num_tokens,
                                          positions,
                                          largest_share_ * model_.num_heads,
                                          largest_share_ * model_.num_kv_heads,
                                          model_.head_dim);
  return model_.num_layers * layer_s * workers_per_device_;
}

WireTimes ProfiledCosts::wire(double num_tokens) const {
  if (placement_.is_colocated()) return {};
  const double latency_s = fit_.round_trip_s(0);
  // Half a round trip is one way; every byte costs the same in each.
  const double byte_s = (fit_.round_trip_s(1e6) - latency_s) / 2e6;
  const double tokens = num_tokens * model_.num_layers;
  return {
      .latency_s = model_.num_layers * latency_s,
      .q_s = tokens * model_.q_bytes * byte_s,
      .kv_s = tokens * model_.kv_bytes * byte_s,
      .out_s = tokens * model_.out_bytes * byte_s,
      .busiest_s = tokens * std::max(model_.q_bytes + model_.kv_bytes, model_.out_bytes) * byte_s};
}

}  // namespace lamina::planner
