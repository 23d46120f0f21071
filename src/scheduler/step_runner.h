// StepRunner: how the scheduler's decisions reach the workers. The interface belongs to the
// scheduler, engine/ implements it over workers (LocalStepRunner, ClusterStepRunner), tests fake
// it. Plain data; confined to the engine's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "kv/block_allocator.h"
#include "model/sampling_params.h"

namespace lamina {

struct TokenLogprobEntry {
  int32_t id = 0;
  float logprob = 0.0F;
};

// A token with what was asked to be known about it.
struct ScoredToken {
  int32_t id = 0;
  float logprob = 0.0F;
  std::vector<TokenLogprobEntry> top_logprobs;
};

// A sequence that enters the workers (new, or to be recomputed): its slot's earlier state is
// dropped.
struct SequenceStart {
  int32_t slot = 0;
  SamplingParams sampling;
  int32_t num_prompt_tokens = 0;
  std::vector<int32_t> tokens;  // prompt and whatever was generated before a preemption
};

// One sequence's part of a step: tokens [first_position, first_position + num_tokens) of it are
// run. The worker knows the ids: from SequenceStart, and those it sampled itself.
struct SequenceStep {
  int32_t slot = 0;
  int32_t first_position = 0;
  int32_t num_tokens = 0;
  std::vector<BlockId> new_blocks;  // appended to the slot's block table
  bool samples = false;             // the last token's logits give the next token
  int32_t num_prompt_logprobs = 0;  // the last this many of the step's tokens are prompt tokens
                                    // whose successor is to be scored
};

// Everything the workers need to know for one step of one micro-batch.
struct StepPlan {
  std::vector<int32_t> released_slots;
  std::vector<SequenceStart> starts;
  std::vector<SequenceStep> sequences;

  [[nodiscard]] int32_t num_tokens() const {
    int32_t count = 0;
    for (const SequenceStep& sequence : sequences) count += sequence.num_tokens;
    return count;
  }
};

struct SequenceOutput {
  int32_t slot = 0;
  bool sampled = false;
  ScoredToken token;                         // if sampled
  std::vector<ScoredToken> prompt_logprobs;  // as asked for: the successors of those positions
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // Runs one step to its end; one output for each entry of plan.sequences, in order. On an error
  // nothing of the step counts, and the workers' state of every slot is lost.
  virtual Result<std::vector<SequenceOutput>> run(const StepPlan& plan) = 0;
};

}  // namespace lamina
