// AttentionLayer: how one attention layer weighs its keys, as an attention worker must know it; see
// kernels/attention.h. Travels with a session's configuration. Plain value.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace lamina::wire {

struct AttentionLayer {
  float scale = 1.0F;                            // multiplies q.k
  std::optional<int32_t> window = std::nullopt;  // tokens; none: all earlier tokens are seen
  std::optional<float> soft_cap = std::nullopt;  // scores become cap * tanh(score / cap)
  std::vector<float> alibi_slopes = {};          // of the worker's query heads, or none
  // Scores of a key without a value, of the worker's query heads, or none. Where a sequence is
  // split, one worker alone is given them.
  std::vector<float> sinks = {};

  friend bool operator==(const AttentionLayer&, const AttentionLayer&) = default;
};

}  // namespace lamina::wire
