// Vectorised passes over a row of logits, for cpu/sample.cc. Elementwise, so the same on every
// instruction set.
#pragma once

#include <cstdint>

namespace lamina::kernels::cpu {

struct LogitSummary {
  float top = 0.0F;  // the largest
  bool has_finite = false;
};

// Replaces NaN by -inf and +inf by the largest float, then finds the largest. What was finite is
// judged before.
LogitSummary clean_logits(float* logits, int64_t count);

// weights[i] = exp((logits[i] - top) / temperature). May work in place.
void softmax_weights(
    const float* logits, int64_t count, float top, float temperature, float* weights);

}  // namespace lamina::kernels::cpu
