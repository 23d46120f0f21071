#include "worker/plan_translation.h"

namespace lamina {

void to_attention_plan(const StepPlan& plan, uint64_t step, wire::AttentionPlan& out) {
  out.step = step;
  out.micro_batch = 0;
  out.sequences.clear();
  out.new_blocks.clear();
  out.released_slots.assign(plan.released_slots.begin(), plan.released_slots.end());
  for (const SequenceStep& sequence : plan.sequences) {
    out.sequences.push_back({.slot = static_cast<uint32_t>(sequence.slot),
                             .first_position = static_cast<uint32_t>(sequence.first_position),
                             .num_tokens = static_cast<uint32_t>(sequence.num_tokens),
                             .num_new_blocks = static_cast<uint32_t>(sequence.new_blocks.size()),
                             .starts = sequence.starts ? 1U : 0U});
    out.new_blocks.insert(
        out.new_blocks.end(), sequence.new_blocks.begin(), sequence.new_blocks.end());
  }
}

}  // namespace lamina
