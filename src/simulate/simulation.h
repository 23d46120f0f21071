// simulate(): runs a scenario to its end and says whether all went as it must: every request got
// the tokens of the plain model, no matter what was lost, late, dead or preempted. The real
// scheduler, pipeline, replicas and attention workers run under transport/sim; only the model's
// arithmetic and time are made up. The same scenario gives the same history.
#pragma once

#include <vector>

#include "base/status.h"
#include "simulate/event_loop.h"
#include "simulate/scenario.h"

namespace lamina::simulate {

struct Outcome {
  Status status;  // not ok: what went wrong, and who waited for what
  uint64_t num_events = 0;
  uint64_t num_steps = 0;
  uint64_t num_tokens = 0;
  uint64_t num_preemptions = 0;
  uint64_t num_sessions = 0;
  uint64_t num_active_changes = 0;                // with a step under way
  std::vector<wire::MessageKind> stale_messages;  // that a session got
  TimePoint end{};
  // Of the first session, where the scenario keeps them.
  std::vector<Work> slices;
  std::vector<Work> attentions;
};

Outcome simulate(const Scenario& scenario, Log log = {});

}  // namespace lamina::simulate
