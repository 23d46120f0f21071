// Decoding steps through a StepBackend, with dummy tokens and without an engine or prompts: for
// benchmarks of whole deployments. Sequences begin at the context that is asked for; keys and
// values before it are whatever their blocks hold.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model_program.h"
#include "engine/step_backend.h"
#include "kv/block_allocator.h"

namespace lamina::bench {

class StepLoop {
 public:
  // Opens a session with room for one sequence of `least_context` at least. Both outlive the loop.
  // Throws Error.
  StepLoop(StepBackend& backend, const ModelProgram& program, int32_t least_context);
  StepLoop(const StepLoop&) = delete;
  StepLoop& operator=(const StepLoop&) = delete;
  ~StepLoop() { backend_.close(); }

  // Writes to every page of the KV cache: one that nobody has written to is no memory yet, and
  // reading it would cost nothing.
  void touch_blocks();
  // The most sequences of `context` tokens that blocks and program have room for.
  [[nodiscard]] int32_t most_sequences(int32_t context) const;
  // Replaces the sequences by `batch` of `context` tokens, shared out over the micro-batches.
  void set_sequences(int32_t batch, int32_t context);
  // Lets every micro-batch do so many steps, each always the same one; seconds of one step of all.
  double run_steps(int32_t num_steps);

 private:
  void start(int32_t micro_batch);
  [[nodiscard]] int32_t wait();
  void touch(BlockId first, BlockId end, int32_t position);

  StepBackend& backend_;
  const ModelProgram& program_;
  BlockLanes lanes_;
  std::vector<StepPlan> plans_;  // of each micro-batch's next step
  std::vector<int32_t> slots_;   // in use
};

}  // namespace lamina::bench
