// StepPlan: what the workers are to do in one step of one micro-batch, and what comes back. The
// scheduler writes it, the workers obey it; plain data, no pointers, so that it can travel.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/block_allocator.h"
#include "model/sampling_params.h"

namespace lamina {

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0F;  // natural log
};

// A token with what was asked to be known about it.
struct ScoredToken {
  int32_t id = 0;
  float logprob = 0.0F;
  std::vector<TokenLogprob> top_logprobs;  // most probable first
};

// A sequence that enters the workers, new or to be recomputed: its slot's earlier state is dropped.
struct SequenceStart {
  int32_t slot = 0;
  SamplingParams sampling;
  int32_t num_prompt_tokens = 0;
};

// One sequence's part of a step: its tokens [first_position, first_position + num_tokens) are run.
struct SequenceStep {
  int32_t slot = 0;
  int32_t first_position = 0;
  int32_t num_tokens = 0;
  std::vector<int32_t> tokens;      // their ids
  std::vector<BlockId> new_blocks;  // appended to the slot's block table
  // The slot's state is dropped first; it is one of the plan's `starts`. Past position 0 its blocks
  // hold the tokens before, whose ids the workers do not learn: penalties take them for id 0.
  bool starts = false;
  bool samples = false;  // the last token's logits give the next token
  int32_t score_begin =
      0;  // positions [score_begin, score_begin + num_scored) of the step are prompt tokens
  int32_t num_scored = 0;              // whose successor, also a prompt token, is to be scored
  std::vector<int32_t> score_targets;  // the successors' ids [num_scored]
};

struct StepPlan {
  std::vector<int32_t>
      released_slots;  // their sequences ended or were preempted: block tables are cleared first
  std::vector<SequenceStart> starts;
  std::vector<SequenceStep> sequences;

  [[nodiscard]] bool empty() const { return sequences.empty(); }
  // Every sequence brings one token.
  [[nodiscard]] bool is_decoding() const {
    return num_tokens() == static_cast<int32_t>(sequences.size());
  }
  [[nodiscard]] int32_t num_tokens() const {
    int32_t count = 0;
    for (const SequenceStep& sequence : sequences) count += sequence.num_tokens;
    return count;
  }
};

struct SequenceOutput {
  int32_t slot = 0;
  bool failed = false;  // its logits hold no finite number: the sequence cannot go on
  bool sampled = false;
  ScoredToken token;                       // if sampled
  std::vector<ScoredToken> prompt_scores;  // num_scored successors, in order of position
};

// A step of a micro-batch that has ended.
struct FinishedStep {
  int32_t micro_batch = 0;
  std::vector<SequenceOutput> outputs;  // in the order of the plan's sequences
};

}  // namespace lamina
