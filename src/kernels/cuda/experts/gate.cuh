// Gated activations of single numbers, of which only the launch knows the activation. Device code
// only.
#pragma once

#include "kernels/cuda/experts/experts_params.h"
#include "kernels/cuda/rowwise/activation.cuh"

namespace lamina::kernels::cuda {

__device__ inline float activated(float x, Activation kind) {
  switch (kind) {
    case Activation::kRelu:
      return activate<Activation::kRelu>(x);
    case Activation::kReluSquared:
      return activate<Activation::kReluSquared>(x);
    case Activation::kSilu:
      return activate<Activation::kSilu>(x);
    case Activation::kGelu:
      return activate<Activation::kGelu>(x);
    case Activation::kGeluTanh:
      return activate<Activation::kGeluTanh>(x);
    case Activation::kQuickGelu:
      return activate<Activation::kQuickGelu>(x);
    case Activation::kSigmoid:
      break;
  }
  return activate<Activation::kSigmoid>(x);
}

__device__ inline float gated(float gate_value, float up_value, const Gate& gate) {
  return gated(gate_value, up_value, gate.limit, gate.has_limit, [&](float x) {
    return activated(x, gate.activation);
  });
}

}  // namespace lamina::kernels::cuda
