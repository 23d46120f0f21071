// ModelWorker: runs steps: slices on its device, attention through a backend, then sampling. It
// keeps each slot's tokens, so that a plan carries ids only for prompts. Confined to one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "exec/slice_executor.h"
#include "kernels/sample.h"
#include "plan/step_plan.h"
#include "worker/attention_backend.h"

namespace lamina {

struct ModelWorkerStats {
  uint64_t num_steps = 0;
  Duration slice_time{};      // computing in slices, sends included
  Duration attention_wait{};  // waiting for attention's output (colocated: computing it)
};

class ModelWorker {
 public:
  // `model` and `weights` outlive the worker; `num_slots` sequences at once. Throws what
  // SliceExecutor throws.
  ModelWorker(const SlicedModel& model,
              const WeightStore& weights,
              const StepLimits& limits,
              int32_t num_slots,
              StreamView stream);

  // One step to its end; outputs in the order of plan.sequences. On an error the state of every
  // slot is lost.
  Result<std::vector<SequenceOutput>> run(const StepPlan& plan, AttentionBackend& attention);

  [[nodiscard]] const ModelWorkerStats& stats() const { return stats_; }
  [[nodiscard]] size_t activation_bytes() const { return executor_.activation_bytes(); }

 private:
  struct SlotState {
    SamplingParams sampling;
    int32_t num_prompt_tokens = 0;
    std::vector<int32_t> tokens;
  };

  void apply_starts(const StepPlan& plan);
  Status gather_inputs(const StepPlan& plan);
  Status run_slices(AttentionBackend& attention);
  Result<std::vector<SequenceOutput>> read_logits(const StepPlan& plan);
  Status score_prompts(const StepPlan& plan, std::vector<SequenceOutput>& outputs);
  Status sample_tokens(const StepPlan& plan, std::vector<SequenceOutput>& outputs);
  static kernels::SampleRow sample_row(const SlotState& state);
  [[nodiscard]] const SlotState& slot(int32_t idx) const {
    return slots_[static_cast<size_t>(idx)];
  }

  SliceExecutor executor_;
  StreamView stream_;
  std::vector<SlotState> slots_;
  std::vector<int32_t> token_ids_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> logits_rows_;
  std::vector<int32_t> scored_rows_;
  int64_t num_sampled_ = 0;  // of logits_rows_, the first ones
  ModelWorkerStats stats_;
};

}  // namespace lamina
