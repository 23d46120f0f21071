// ModelWorker: runs steps: slices on its device, attention through a backend, then sampling. It
// keeps each slot's tokens, so that a plan carries ids only for prompts. Confined to one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "kernels/sample.h"
#include "plan/step_plan.h"
#include "worker/attention_backend.h"
#include "worker/rank_group.h"

namespace lamina {

class ModelWorker {
 public:
  // `ranks`: the model's tensor-parallel shards, one where it is whole; `num_slots` sequences at
  // once. Throws what RankGroup throws.
  ModelWorker(std::span<const RankModel> ranks, const StepLimits& limits, int32_t num_slots);

  // One step to its end, attention of rank r through attention[r]; outputs in the order of
  // plan.sequences. On an error the state of every slot is lost.
  Result<std::vector<SequenceOutput>> run(const StepPlan& plan,
                                          std::span<AttentionBackend* const> attention);

  [[nodiscard]] const RankGroupTimes& times() const { return ranks_.times(); }
  [[nodiscard]] int32_t num_ranks() const { return ranks_.num_ranks(); }
  [[nodiscard]] size_t activation_bytes() const { return ranks_.activation_bytes(); }

 private:
  struct SlotState {
    SamplingParams sampling;
    int32_t num_prompt_tokens = 0;
    std::vector<int32_t> tokens;
  };

  void apply_starts(const StepPlan& plan);
  Status gather_inputs(const StepPlan& plan);
  Result<std::vector<SequenceOutput>> read_logits(const StepPlan& plan);
  Status score_prompts(const StepPlan& plan, std::vector<SequenceOutput>& outputs);
  Status sample_tokens(const StepPlan& plan, std::vector<SequenceOutput>& outputs);
  static kernels::SampleRow sample_row(const SlotState& state);
  [[nodiscard]] const SlotState& slot(int32_t idx) const {
    return slots_[static_cast<size_t>(idx)];
  }

  RankGroup ranks_;
  StreamView stream_;  // of rank 0, which samples
  std::vector<SlotState> slots_;
  std::vector<int32_t> token_ids_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> logits_rows_;
  std::vector<int32_t> scored_rows_;
  int64_t num_sampled_ = 0;  // of logits_rows_, the first ones
};

}  // namespace lamina
