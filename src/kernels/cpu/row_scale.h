// How a row of a quantised KV cache is scaled: what every kernel that appends has to agree on.
#pragma once

#include <limits>

#include "tensor/dtype.h"

namespace lamina::kernels::cpu {

struct RowScale {
  float scale = 0.0F;    // a code times this is what was appended, nearly
  float inverse = 0.0F;  // what was appended times this is to be rounded to a code; 0: codes are 0
};

// Of a row whose largest magnitude is `largest`; an infinity or a NaN if not all are numbers.
template <typename Code>
RowScale row_scale(float largest) {
  constexpr float kRange = std::is_same_v<Code, int8_t> ? 127.0F : kLargestE4M3;
  constexpr float kTooSmall = 0x1p-96F;  // its inverse would leave f32, and a score never sees it
  if (!(largest <= std::numeric_limits<float>::max())) {
    return {std::numeric_limits<float>::quiet_NaN(), 0.0F};
  }
  if (largest < kTooSmall) return {};
  return {largest / kRange, kRange / largest};
}

}  // namespace lamina::kernels::cpu
