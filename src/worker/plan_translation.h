// The part of a StepPlan that attention workers need, as their wire message has it.
#pragma once

#include <cstdint>

#include "plan/step_plan.h"
#include "wire/messages.h"

namespace lamina {

// Reuses the vectors of `out`.
void to_attention_plan(const StepPlan& plan, uint64_t step, wire::AttentionPlan& out);

}  // namespace lamina
