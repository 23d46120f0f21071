// Costs of a step from a profile's fits: products by their shapes, attention by sequences and
// positions, the wire by round trips. Immutable.
#pragma once

#include "kv/kv_partition.h"
#include "plan/model_work.h"
#include "plan/placement_spec.h"
#include "plan/step_costs.h"
#include "planner/profile/profile.h"

namespace lamina::planner {

class ProfiledCosts final : public StepCosts {
 public:
  // `model` and `fit` outlive this. `workers_per_device`: attention workers that share one of the
  // profiled devices take turns on it.
  ProfiledCosts(const ModelWork& model,
                const PlacementSpec& placement,
                const KvPartition& partition,
                const ProfileFit& fit,
                int32_t workers_per_device = 1);

  [[nodiscard]] double model_s(double num_tokens) const override;
  [[nodiscard]] double attention_s(double num_tokens, double num_positions) const override;
  [[nodiscard]] WireTimes wire(double num_tokens) const override;
  [[nodiscard]] double host_s() const override { return 0; }
  [[nodiscard]] double kv_projection_share() const override { return model_.kv_projection_share; }

 private:
  const ModelWork& model_;
  PlacementSpec placement_;
  const ProfileFit& fit_;
  int32_t workers_per_device_;
  double largest_share_ = 0;  // of the KV cache
};

}  // namespace lamina::planner
