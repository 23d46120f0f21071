// Whole generations through a scheduler and whatever runs its steps, without an engine: for tests
// of what steps run on.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "scheduler/scheduler.h"
#include "support/fixture_model.h"

namespace lamina::test {

// As StepRunner has them.
struct StepCalls {
  std::function<Status(int32_t micro_batch, StepPlan plan)> start;
  std::function<Result<std::optional<FinishedStep>>(Deadline deadline)> wait;
};

// A greedy one for each prompt of the golden, as long as that.
std::vector<Sequence> sequences_of(const Golden& golden);

// Runs all sequences to their end: which micro-batches had steps, as bits. The calls' first error,
// or kDeadlineExceeded after kChildTimeout without a step that ends.
Result<uint32_t> run_to_end(const SchedulerConfig& config,
                            std::vector<Sequence>& sequences,
                            const StepCalls& steps);

// Fails the test unless sequence i has generated what the golden's prompt i mod n has, as far as it
// went.
void expect_greedy(const std::vector<Sequence>& sequences, const Golden& golden);

}  // namespace lamina::test
