// AttentionBackend: an AttentionPort that also hears of each step before its first slice.
// LocalAttention is the colocated mode, RemoteAttention the offloaded one; a model worker knows
// only this.
#pragma once

#include "base/status.h"
#include "exec/slice_executor.h"
#include "plan/step_plan.h"

namespace lamina {

class AttentionBackend : public AttentionPort {
 public:
  // Before the step's first slice. An error here or in any later call loses the state of every
  // slot.
  virtual Status begin_step(const StepPlan& plan) = 0;
};

}  // namespace lamina
