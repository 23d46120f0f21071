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
  BlockLanes blocks;
  int32_t block_size = 16;                // tokens
  int32_t max_num_seqs = 64;              // running at once; also the number of slots
  int32_t max_num_batched_tokens = 2048;  // query tokens of a step
  int32_t max_logits_rows = 256;  // rows of a step whose logits are computed; > max_num_seqs

  // Throws Error kInvalidArgument, naming the field.
  void validate() const;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerConfig& config);

  // Queues a sequence. The caller keeps it alive until it is removed. Never rejects: limits are the
  // engine's. CHECKs that the sequence alone fits the blocks.
  void add(Sequence* sequence);
  // Takes a sequence out, whatever its state; its blocks and slot are free at once, and the next
  // plan releases the slot.
  void remove(Sequence* sequence);

  // The next step, within the budgets: running sequences oldest first, each decoding one sure of
  // its token, then admissions from the queue. A running sequence that finds no block preempts the
  // youngest one, which goes back to the head of the queue and is recomputed. Empty when there is
  // nothing to do.
  StepPlan schedule();
  // Applies the outputs of the plan that schedule() gave last: counts cached and scored tokens,
  // appends sampled ones.
  void complete(const StepPlan& plan, const std::vector<SequenceOutput>& outputs);

  // After the workers lost their state: every running sequence goes back to the queue, oldest
  // first.
  void preempt_all();
  // Another capacity, after preempt_all(). CHECKs that nothing runs.
  void resize(const BlockLanes& blocks);

  // The sequence in a slot of the last plan.
  [[nodiscard]] Sequence* in_slot(int32_t slot) const { return slots_[static_cast<size_t>(slot)]; }
  [[nodiscard]] const std::vector<Sequence*>& running() const { return running_; }
  [[nodiscard]] const std::deque<Sequence*>& waiting() const { return waiting_; }
  [[nodiscard]] const BlockAllocator& blocks() const { return allocator_; }
  [[nodiscard]] uint64_t num_preemptions() const { return num_preemptions_; }

 private:
  struct Budget {
    int32_t tokens = 0;
    int32_t decode_tokens = 0;  // of `tokens`, kept for decoding sequences not yet visited
    int32_t score_rows = 0;     // logits rows left for prompt scores
  };

  [[nodiscard]] int32_t blocks_for(int32_t num_tokens) const;
  [[nodiscard]] int32_t chunk_tokens(const Sequence& sequence, const Budget& budget) const;
  bool reserve_blocks(Sequence& sequence, int32_t num_tokens);
  bool make_room(Sequence& sequence, int32_t num_tokens);
  bool can_admit(const Sequence& sequence) const;
  void schedule_running(Budget& budget, StepPlan& plan);
  void admit_waiting(Budget& budget, StepPlan& plan);
  void append_step(
      Sequence& sequence, int32_t num_tokens, bool starts, Budget& budget, StepPlan& plan);
  void release(Sequence& sequence);
  void preempt(Sequence& sequence);

  SchedulerConfig config_;
  BlockAllocator allocator_;
  std::vector<Sequence*> running_;  // oldest first
  std::deque<Sequence*> waiting_;
  std::vector<Sequence*> slots_;         // owner of each slot, or null
  std::vector<int32_t> free_slots_;      // a stack
  std::vector<int32_t> released_slots_;  // for the next plan
  uint64_t num_preemptions_ = 0;
};

}  // namespace lamina
