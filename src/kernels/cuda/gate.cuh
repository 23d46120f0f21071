// Gated activations of single numbers. Device code only.
#pragma once

#include <cmath>

#include "kernels/cuda/experts_params.h"

namespace lamina::kernels::cuda {

__device__ inline float activated(float x, Activation kind) {
  constexpr float kSqrtHalf = 0.70710678F;
  constexpr float kSqrtTwoOverPi = 0.79788456F;
  switch (kind) {
    case Activation::kRelu:
      return fmaxf(x, 0.0F);
    case Activation::kReluSquared:
      return fmaxf(x, 0.0F) * fmaxf(x, 0.0F);
    case Activation::kSilu:
      return x / (1.0F + expf(-x));
    case Activation::kGelu:
      return 0.5F * x * erfcf(-x * kSqrtHalf);
    case Activation::kGeluTanh:
      return 0.5F * x * (1.0F + tanhf(kSqrtTwoOverPi * (x + 0.044715F * x * x * x)));
    case Activation::kQuickGelu:
      return x / (1.0F + expf(-1.702F * x));
    case Activation::kSigmoid:
      return 1.0F / (1.0F + expf(-x));
  }
  return 0.0F;
}

__device__ inline float gated(float gate_value, float up_value, const Gate& gate) {
  if (!gate.has_limit) return activated(gate_value, gate.activation) * up_value;
  const float up = fminf(fmaxf(up_value, -gate.limit), gate.limit);
  return activated(fminf(gate_value, gate.limit), gate.activation) * (up + 1.0F);
}

}  // namespace lamina::kernels::cuda
