// Scheduler: continuous batching over KV blocks, in several micro-batches that share the blocks. It
// plans a micro-batch's step while those of others are under way: it admits, schedules and preempts
// sequences; it counts tokens and blocks and sees no pointer, stream or socket. Confined to the
// engine's thread.
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
  int32_t block_size = 16;  // tokens
  int32_t num_micro_batches = 1;
  int32_t max_num_seqs = 64;              // running at once, over all micro-batches; also the slots
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
  // Takes a sequence out, whatever its state; the caller may destroy it. Its blocks and slot are
  // free at once, or when the step that it is in has ended; the next plan after that releases the
  // slot.
  void remove(Sequence* sequence);

  // How many micro-batches, the first ones, are planned for; all at first. Sequences of the others
  // move over as soon as they are in no step.
  void set_active(int32_t num_micro_batches);
  // Between steps: evens out the micro-batches, for sequences have ended, or set_active() was
  // called. Sequences in no step, the youngest first, move to the lightest micro-batch as long as
  // the heavier of the two gets lighter. Before a round of schedule().
  void share_out();

  // The next step of a micro-batch that has none under way, within the budgets: its running
  // sequences oldest first, each decoding one sure of its token, then admissions from the queue, as
  // long as no other micro-batch is lighter by half a newcomer. A running sequence that finds no
  // block preempts the youngest one of all, which goes back to the head of the queue and is
  // recomputed; if that one is in a step it waits. Empty when there is nothing to do.
  StepPlan schedule(int32_t micro_batch);
  // Applies the outputs of the plan that schedule() gave last for this micro-batch: counts cached
  // and scored tokens, appends sampled ones.
  void complete(int32_t micro_batch,
                const StepPlan& plan,
                const std::vector<SequenceOutput>& outputs);

  // After the workers lost their state, and with it all steps under way: every running sequence
  // goes back to the queue, oldest first.
  void preempt_all();
  // Another capacity, after preempt_all(). CHECKs that nothing runs.
  void resize(const BlockLanes& blocks);

  // The sequence in a slot of a plan under way; null if it was removed.
  [[nodiscard]] Sequence* in_slot(int32_t slot) const { return slots_[static_cast<size_t>(slot)]; }
  [[nodiscard]] const std::vector<Sequence*>& running() const { return running_; }
  [[nodiscard]] const std::deque<Sequence*>& waiting() const { return waiting_; }
  [[nodiscard]] const BlockAllocator& blocks() const { return allocator_; }
  [[nodiscard]] uint64_t num_preemptions() const { return num_preemptions_; }
  // What each micro-batch's running sequences weigh.
  struct Load {
    int32_t num_sequences = 0;
    int64_t num_context_tokens = 0;
  };
  [[nodiscard]] std::vector<Load> loads() const;
  [[nodiscard]] Load load() const;  // of all of them

 private:
  struct Budget {
    int32_t tokens = 0;
    int32_t decode_tokens = 0;  // of `tokens`, kept for decoding sequences not yet visited
    int32_t score_rows = 0;     // logits rows left for prompt scores
  };

  // Left behind by a sequence that was removed in the middle of a step.
  struct Leftover {
    int32_t micro_batch = 0;
    int32_t slot = 0;
    std::vector<BlockId> blocks;
  };
  enum class Room : uint8_t { kMade, kPreemptedItself, kMustWait };

  [[nodiscard]] int32_t blocks_for(int32_t num_tokens) const;
  [[nodiscard]] int32_t chunk_tokens(const Sequence& sequence, const Budget& budget) const;
  bool reserve_blocks(Sequence& sequence, int32_t num_tokens);
  Room make_room(Sequence& sequence, int32_t num_tokens);
  void feed_starved();
  bool can_admit(const Sequence& sequence) const;
  [[nodiscard]] std::vector<double> weights() const;
  static double weight_of(const Load& part, const Load& all);
  [[nodiscard]] bool may_join(const Sequence& newcomer, int32_t micro_batch) const;
  void schedule_running(int32_t micro_batch, Budget& budget, StepPlan& plan);
  void admit_waiting(int32_t micro_batch, Budget& budget, StepPlan& plan);
  void append_step(
      Sequence& sequence, int32_t num_tokens, bool starts, Budget& budget, StepPlan& plan);
  void release(Sequence& sequence);
  void free_leftovers(int32_t micro_batch);
  void preempt(Sequence& sequence);

  SchedulerConfig config_;
  BlockAllocator allocator_;
  std::vector<Sequence*> running_;  // oldest first
  std::deque<Sequence*> waiting_;
  std::vector<Sequence*> slots_;         // owner of each slot, or null
  std::vector<int32_t> free_slots_;      // a stack
  std::vector<int32_t> released_slots_;  // for the next plan
  std::vector<Leftover> leftovers_;
  int32_t num_active_ = 1;
  uint64_t num_preemptions_ = 0;
};

}  // namespace lamina
