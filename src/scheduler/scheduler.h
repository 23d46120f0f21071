// Scheduler: continuous batching over KV blocks. Between steps it admits, schedules and preempts
// sequences; it counts tokens and blocks and sees no pointer, stream or socket. One micro-batch
// until rotational staggering (issue 3). Confined to the engine's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/status.h"
#include "kv/block_allocator.h"
#include "scheduler/sequence.h"
#include "scheduler/step_runner.h"

namespace lamina {

struct SchedulerConfig {
  int32_t num_blocks = 0;
  int32_t block_size = 16;                // tokens
  int32_t max_num_seqs = 64;              // running at once; also the number of slots
  int32_t max_num_batched_tokens = 2048;  // query tokens of a step
  int32_t max_logits_rows = 256;  // rows of a step whose logits are computed; >= max_num_seqs
  int32_t max_model_len = 0;      // tokens of a sequence, prompt and generated

  // Throws Error kInvalidArgument; max_model_len must fit num_blocks, so that one sequence alone
  // always can finish.
  void validate() const;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerConfig& config);

  // Queues a sequence. The caller keeps it alive until it is finished or removed. Never rejects:
  // limits are the engine's. CHECKs that it fits max_model_len.
  void add(Sequence* sequence);
  // Takes a sequence out, whatever its state; its blocks and slot are free at once, and the next
  // plan releases the slot.
  void remove(Sequence* sequence);

  // The next step: running sequences that decode first, then prefill chunks of running ones, then
  // admissions, within the budgets. Sequences that find no block preempt the youngest running one,
  // which goes back to the head of the queue and is recomputed. Empty when there is nothing to do.
  StepPlan schedule();
  // Applies the outputs of the plan that schedule() gave last: counts cached tokens, appends
  // sampled ones.
  void complete(const StepPlan& plan, const std::vector<SequenceOutput>& outputs);

  // After the workers lost their state (reconfiguration): every running sequence goes back to the
  // queue, oldest first.
  void preempt_all();
  // With other capacity, after preempt_all(); CHECKs that nothing runs.
  void resize(int32_t num_blocks);

  [[nodiscard]] const std::vector<Sequence*>& running() const { return running_; }
  [[nodiscard]] const std::deque<Sequence*>& waiting() const { return waiting_; }
  [[nodiscard]] const BlockAllocator& blocks() const { return allocator_; }
  [[nodiscard]] uint64_t num_preemptions() const { return num_preemptions_; }

 private:
  SchedulerConfig config_;
  BlockAllocator allocator_;
  std::vector<Sequence*> running_;  // oldest first
  std::deque<Sequence*> waiting_;
  std::vector<int32_t> free_slots_;
  std::vector<int32_t> released_slots_;  // for the next plan
  uint64_t num_preemptions_ = 0;
};

}  // namespace lamina
