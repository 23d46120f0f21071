// StepPrediction: what the planner makes of a profile of the GPUs that run a model: decoding steps
// predicted as `lamina plan --profile` does. The profile is measured at other numbers of sequences
// and lengths of context than those of the steps. Confined to one thread.
#pragma once

#include <optional>

#include "engine/model_program.h"
#include "plan/decode_estimate.h"
#include "planner/profile/meter.h"

namespace lamina::bench {

class StepPrediction {
 public:
  // Measures: the program's first rank on `model`'s GPU, attention on the other one. The program
  // outlives the call. Throws Error.
  StepPrediction(const ModelWork& work,
                 const ModelProgram& program,
                 StreamView model,
                 StreamView attention,
                 const planner::ProfileGrid& grid);

  [[nodiscard]] StepEstimate estimate(const PlacementSpec& placement,
                                      int32_t batch,
                                      int32_t context) const;

 private:
  ModelWork work_;
  planner::Profile profile_;
  std::optional<planner::ProfileFit> fit_;
};

}  // namespace lamina::bench
