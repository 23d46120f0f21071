#include "support/sequence_run.h"

#include <gtest/gtest.h>

#include "support/child_process.h"

namespace lamina::test {
namespace {

// Takes out the plan's sequences that are complete.
size_t remove_complete(Scheduler& scheduler, const StepPlan& plan) {
  size_t count = 0;
  for (const SequenceStep& step : plan.sequences) {
    Sequence* sequence = scheduler.in_slot(step.slot);
    if (!sequence->is_complete()) continue;
    scheduler.remove(sequence);
    ++count;
  }
  return count;
}

Result<FinishedStep> wait_for_step(const StepCalls& steps) {
  const Deadline deadline = Deadline::after(kChildTimeout);
  while (!deadline.has_passed()) {
    LAMINA_ASSIGN_OR_RETURN(std::optional<FinishedStep> finished, steps.wait(deadline));
    if (finished) return *std::move(finished);
  }
  return deadline_exceeded("no step ends");
}

}  // namespace

std::vector<Sequence> sequences_of(const Golden& golden) {
  std::vector<Sequence> sequences(golden.prompts.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = sequences[i];
    sequence.id = i + 1;
    sequence.tokens = golden.prompts[i];
    sequence.num_prompt_tokens = static_cast<int32_t>(golden.prompts[i].size());
    sequence.max_total_tokens =
        sequence.num_prompt_tokens + static_cast<int32_t>(golden.greedy[i].size());
    sequence.sampling.temperature = 0;
  }
  return sequences;
}

Result<uint32_t> run_to_end(const SchedulerConfig& config,
                            std::vector<Sequence>& sequences,
                            const StepCalls& steps) {
  Scheduler scheduler(config);
  for (Sequence& sequence : sequences) scheduler.add(&sequence);
  std::vector<std::optional<StepPlan>> plans(static_cast<size_t>(config.num_micro_batches));
  uint32_t used = 0;
  for (size_t num_left = sequences.size(); num_left > 0;) {
    scheduler.share_out();
    for (int32_t i = 0; i < config.num_micro_batches; ++i) {
      std::optional<StepPlan>& plan = plans[static_cast<size_t>(i)];
      if (plan) continue;
      StepPlan next = scheduler.schedule(i);
      if (next.empty()) continue;
      plan = next;
      used |= 1U << static_cast<uint32_t>(i);
      LAMINA_RETURN_IF_ERROR(steps.start(i, std::move(next)));
    }
    LAMINA_ASSIGN_OR_RETURN(const FinishedStep finished, wait_for_step(steps));
    std::optional<StepPlan>& plan = plans[static_cast<size_t>(finished.micro_batch)];
    scheduler.complete(finished.micro_batch, *plan, finished.outputs);
    num_left -= remove_complete(scheduler, *plan);
    plan.reset();
  }
  return used;
}

void expect_greedy(const std::vector<Sequence>& sequences, const Golden& golden) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& sequence = sequences[i];
    const std::vector<int32_t> generated(sequence.tokens.begin() + sequence.num_prompt_tokens,
                                         sequence.tokens.end());
    std::vector<int32_t> expected = golden.greedy[i % golden.prompts.size()];
    expected.resize(static_cast<size_t>(sequence.max_total_tokens - sequence.num_prompt_tokens));
    EXPECT_EQ(generated, expected) << "sequence " << i;
  }
}

}  // namespace lamina::test
