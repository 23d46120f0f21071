// Costs of a step from a profile's fits: products by their shapes, attention by sequences and
// positions, the wire by round trips. Immutable.
#pragma once

#include "kv/kv_partition.h"
#include "plan/model_work.h"
#include "plan/placement_spec.h"
#include "plan/step_costs.h"
#include "planner/profile/profile.h"

namespace lamina::planner {

// What parts of a placement have in common where they run on one machine.
struct SharedMachine {
  int32_t workers_per_device = 1;  // attention workers that take turns on a profiled device
  bool has_both = false;           // slices and attention
};

class ProfiledCosts final : public StepCosts {
 public:
  // `model` and `fit` outlive this. Throws Error kUnimplemented for what a profile cannot say:
  // tensor-parallel ranks, which it has not measured, experts of a model whose slices it has not,
  // and offloaded attention where it has no round trips.
  ProfiledCosts(const ModelWork& model,
                const PlacementSpec& placement,
                const KvPartition& partition,
                const ProfileFit& fit,
                const SharedMachine& shared = {});

  [[nodiscard]] double model_s(double num_tokens) const override;
  [[nodiscard]] std::optional<SliceTimes> slices(double num_tokens) const override;
  [[nodiscard]] double attention_s(double num_tokens, double num_positions) const override;
  [[nodiscard]] PaceFactors in_turns(double num_tokens) const override;
  [[nodiscard]] PaceFactors side_by_side(double num_tokens) const override {
    return shared_.has_both ? fit_.side_by_side(num_tokens) : PaceFactors();
  }
  [[nodiscard]] WireTimes wire(double num_tokens) const override;
  [[nodiscard]] double host_s() const override { return 0; }
  [[nodiscard]] double kv_projection_share() const override { return model_.kv_projection_share; }

 private:
  const ModelWork& model_;
  PlacementSpec placement_;
  const ProfileFit& fit_;
  SharedMachine shared_;
  double largest_share_ = 0;  // of the KV cache
};

}  // namespace lamina::planner
