// Request and Sequence as the scheduler sees them: token ids, counts and blocks; no text, pointer,
// stream or socket. Owned by the engine's thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kv/block_allocator.h"
#include "model/sampling_params.h"

namespace lamina {

enum class SequenceState : uint8_t { kWaiting, kRunning, kRemoved };

// One generation of a request. Every prompt and generated token stays here, so that a sequence can
// be recomputed from nothing after preemption or the loss of a worker.
struct Sequence {
  uint64_t id = 0;              // grows with arrival: the larger is the younger
  std::vector<int32_t> tokens;  // prompt, then generated
  int32_t num_prompt_tokens = 0;
  int32_t max_total_tokens = 0;  // prompt + max_tokens, capped by the engine
  SamplingParams sampling;
  bool wants_prompt_scores = false;  // log-probabilities of prompt tokens 1.. are wanted

  // The scheduler's own.
  SequenceState state = SequenceState::kWaiting;
  int32_t slot = -1;              // handle at the workers while running
  int32_t micro_batch = -1;       // whose steps it takes part in while running
  bool is_in_step = false;        // of a step under way
  bool is_starved = false;        // it waits for blocks of a younger one that is in a step
  int32_t num_cached_tokens = 0;  // tokens whose K and V are in blocks
  std::vector<BlockId> blocks;
  int32_t num_blocks_announced = 0;  // of `blocks`, those that the workers know of
  int32_t num_scored = 0;  // prompt tokens scored so far: not asked for again after a preemption

  [[nodiscard]] int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  [[nodiscard]] int32_t num_generated() const { return num_tokens() - num_prompt_tokens; }
  [[nodiscard]] bool is_complete() const {
    return num_tokens() >= max_total_tokens &&
           num_cached_tokens >= std::min(num_tokens(), num_prompt_tokens);
  }
};

}  // namespace lamina
