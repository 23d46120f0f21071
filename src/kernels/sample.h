// Sampling: the step after the last slice, logits to token ids. Order of operations as in vLLM:
// repetition, frequency and presence penalties, logit bias and forbidden ids, log-probabilities
// taken here, temperature, top-k, top-p, min-p, draw.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0F;  // natural log
};

inline constexpr int32_t kNoToken = -1;

struct SampledToken {
  int32_t id = kNoToken;
  float logprob = 0.0F;  // of `id`; only where logprobs were asked for
  std::vector<TokenLogprob>
      top_logprobs;  // num_logprobs of them, most probable first, smaller id first among equals
};

// What one row of logits is sampled with: model/sampling_params.h has the meanings and ranges, this
// is the operator's view of it. Spans outlive the call.
struct SampleRow {
  float temperature = 1.0F;  // 0: arg-max
  float top_p = 1.0F;
  int32_t top_k = 0;  // <= 0: all
  float min_p = 0.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  float repetition_penalty = 1.0F;
  uint64_t seed = 0;
  int32_t num_logprobs = -1;  // -1: no log-probabilities
  std::span<const std::pair<int32_t, float>> logit_bias = {};
  std::span<const int32_t> forbidden_ids = {};
  std::span<const int32_t> prompt_ids = {};  // for the repetition penalty
  // For all penalties; its length is the counter of the draw, so a replayed sequence draws the same
  // token.
  std::span<const int32_t> generated_ids = {};

  // Without penalties nobody reads ids, of which a long context has many.
  [[nodiscard]] bool penalizes_prompt() const { return repetition_penalty != 1.0F; }
  [[nodiscard]] bool penalizes_generated() const {
    return penalizes_prompt() || frequency_penalty != 0.0F || presence_penalty != 0.0F;
  }
};

// logits [S, V] f32, overwritten. out has S elements. Arg-max takes the smallest id among equals;
// NaN never wins. A row without a finite logit (all forbidden, or NaN) gives id kNoToken: its
// sequence fails, the others do not. Waits for the stream, since `out` is the host's. Errors:
// kInvalidArgument on sizes that do not fit, a parameter out of its range, or an id that is read
// and outside of the V.
[[nodiscard]] Status sample(TensorView logits,
                            std::span<const SampleRow> rows,
                            std::span<SampledToken> out,
                            StreamView stream);

// Log-probability of id targets[s] under row s of `logits` and the `num_top` most probable: for
// prompt log-probabilities. kNoToken as above.
[[nodiscard]] Status log_probabilities(TensorView logits,
                                       std::span<const int32_t> targets,
                                       int32_t num_top,
                                       std::span<SampledToken> out,
                                       StreamView stream);

}  // namespace lamina::kernels
