// SequenceStates: what a model replica knows of each sequence slot, its tokens and how it samples,
// gathered from the steps it is told of; from them the inputs of a step and, after its last slice,
// its outputs. Every replica hears of every step, so any of them can sample. Confined to one
// thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "device/stream.h"
#include "exec/slice_executor.h"
#include "kernels/sample.h"
#include "plan/step_plan.h"

namespace lamina {

// The host's inputs of a step.
struct GatheredInputs {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> positions;
  std::vector<int32_t> logits_rows;  // those that are sampled from, then the scored ones
  int64_t num_sampled = 0;

  [[nodiscard]] StepInputs view() const {
    return {.token_ids = token_ids, .positions = positions, .logits_rows = logits_rows};
  }
};

class SequenceStates {
 public:
  explicit SequenceStates(int32_t num_slots) : slots_(static_cast<size_t>(num_slots)) {}

  // Takes in the plan's tokens and gathers its inputs. kInvalidArgument if a sequence goes on where
  // its slot has no tokens; the slots are lost then.
  Status apply(const StepPlan& plan, GatheredInputs& inputs);
  // Outputs of the plan applied, in the order of plan.sequences, from logits [S, V] f32, which it
  // overwrites.
  Result<std::vector<SequenceOutput>> sample(const StepPlan& plan,
                                             const GatheredInputs& inputs,
                                             TensorView logits,
                                             StreamView stream);

 private:
  struct Slot {
    SamplingParams sampling;
    int32_t num_prompt_tokens = 0;
    std::vector<int32_t> tokens;
  };

  Status score_prompts(const StepPlan& plan,
                       const GatheredInputs& inputs,
                       TensorView logits,
                       StreamView stream,
                       std::vector<SequenceOutput>& outputs);
  Status sample_tokens(const StepPlan& plan,
                       const GatheredInputs& inputs,
                       TensorView logits,
                       StreamView stream,
                       std::vector<SequenceOutput>& outputs);
  static kernels::SampleRow sample_row(const Slot& slot);
  [[nodiscard]] const Slot& slot(int32_t idx) const { return slots_[static_cast<size_t>(idx)]; }

  std::vector<Slot> slots_;
};

}  // namespace lamina
