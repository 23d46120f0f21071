// SamplingParams: how the next token of a sequence is drawn from its logits. Plain values with the
// meaning and defaults of the OpenAI API and vLLM; the server fills them in, the model worker obeys
// them after the last slice.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/status.h"

namespace lamina {

struct SamplingParams {
  float temperature = 1.0F;         // 0 means arg-max
  float top_p = 1.0F;               // (0, 1]
  int32_t top_k = 0;                // 0 or -1: all
  float min_p = 0.0F;               // [0, 1]
  float presence_penalty = 0.0F;    // [-2, 2], over generated tokens
  float frequency_penalty = 0.0F;   // [-2, 2], over generated tokens
  float repetition_penalty = 1.0F;  // > 0, over prompt and generated tokens
  uint64_t seed = 0;                // always set: the engine draws one where the user gave none
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added to its logit
  std::vector<int32_t> forbidden_ids;  // not sampled before min_tokens are generated: stop ids
  int32_t min_tokens = 0;
  int32_t num_logprobs = -1;  // -1: none; k >= 0: the sampled token's and the k most probable ones'

  // kInvalidArgument naming the parameter, its value and its range.
  [[nodiscard]] Status validate(int32_t vocab_size) const;
};

}  // namespace lamina
