// StepRunner: how the scheduler's decisions reach the workers. The interface belongs to the
// scheduler; engine/ implements it over workers, tests fake it. Confined to the engine's thread.
#pragma once

#include <vector>

#include "base/result.h"
#include "plan/step_plan.h"

namespace lamina {

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // Runs one step to its end; one output for each entry of plan.sequences, in order. On an error
  // nothing of the step counts, and the workers' state of every slot is lost.
  virtual Result<std::vector<SequenceOutput>> run(const StepPlan& plan) = 0;
};

}  // namespace lamina
