#include "step_prediction.h"

#include <array>

#include "planner/profile/profiled_costs.h"

namespace lamina::bench {

StepPrediction::StepPrediction(const ModelWork& work,
                               const ModelProgram& program,
                               StreamView model,
                               StreamView attention,
                               const planner::ProfileGrid& grid)
    : work_(work),
      profile_{.machine = "this", .device = "cuda", .transport = "cuda_p2p", .model = work.name} {
  const planner::MeteredModel metered{program.rank_models(std::array{model}).front(),
                                      program.step_limits()};
  planner::measure(*planner::make_gpu_meter({}, model, attention, &metered), grid, profile_);
  fit_.emplace(profile_);
}

StepEstimate StepPrediction::estimate(const PlacementSpec& placement,
                                      int32_t batch,
                                      int32_t context) const {
  const KvPartition whole{.num_kv_heads = work_.num_kv_heads,
                          .num_blocks = 1,
                          .tiles = {{0, {0, work_.num_kv_heads}, {0, 1}}}};
  const planner::ProfiledCosts costs(work_, placement, whole, *fit_);
  return estimate_step(costs, placement, work_.num_layers, batch, context);
}

}  // namespace lamina::bench
