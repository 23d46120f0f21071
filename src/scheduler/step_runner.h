// StepRunner: how the scheduler's decisions reach the workers. The interface belongs to the
// scheduler; engine/ implements it over workers, tests fake it. Confined to the engine's thread,
// but for interrupt().
#pragma once

#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "plan/step_plan.h"

namespace lamina {

class StepRunner {
 public:
  virtual ~StepRunner() = default;

  // Starts a step of a micro-batch that has none under way. On an error, here or in wait(), nothing
  // of any step under way counts, and the workers' state of every slot is lost.
  virtual Status start(int32_t micro_batch, StepPlan plan) = 0;
  // Waits until a step ends, `deadline` passes or somebody interrupts: nothing in the latter cases.
  // All that can be is started: a runner may have waited for that.
  virtual Result<std::optional<FinishedStep>> wait(Deadline deadline) = 0;
  // From any thread: ends a wait under way or the next one.
  virtual void interrupt() = 0;
};

}  // namespace lamina
