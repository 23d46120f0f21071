// Activations of one f32 value, accurate to a few units in the last place also where the result is
// small. NaN stays NaN. Meanings: tensor/op_attrs.h.
#pragma once

#include <cuda_runtime.h>

#include "tensor/op_attrs.h"

namespace lamina::kernels::cuda {

// x / (1 + exp(-z)). Where exp() is infinite the result is zero.
__device__ inline float times_sigmoid(float x, float z) {
  return x / (1.0F + expf(-z));
}

template <Activation kActivation>
__device__ inline float activate(float x) {
  if constexpr (kActivation == Activation::kRelu) {
    return x < 0.0F ? 0.0F : x;
  } else if constexpr (kActivation == Activation::kReluSquared) {
    return x < 0.0F ? 0.0F : x * x;
  } else if constexpr (kActivation == Activation::kSilu) {
    return times_sigmoid(x, x);
  } else if constexpr (kActivation == Activation::kGelu) {
    return x * normcdff(x);  // not by erf, which loses the tail
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    // x (1 + tanh(u)) / 2 = x sigmoid(2 u).
    constexpr float kTwiceRoot = 1.59576912F;  // 2 sqrt(2 / pi)
    return times_sigmoid(x, kTwiceRoot * fmaf(0.044715F, x * x * x, x));
  } else if constexpr (kActivation == Activation::kQuickGelu) {
    return times_sigmoid(x, 1.702F * x);
  } else {
    static_assert(kActivation == Activation::kSigmoid);
    return times_sigmoid(1.0F, x);
  }
}

// As GatedActivationAttrs says of two numbers, by activated(x). Comparisons are such that NaN
// stays.
template <typename Activated>
__device__ inline float gated(
    float gate, float up, float limit, bool has_limit, const Activated& activated) {
  if (!has_limit) return activated(gate) * up;
  const float cut_gate = gate > limit ? limit : gate;
  const float cut_up = up > limit ? limit : up < -limit ? -limit : up;
  return activated(cut_gate) * (cut_up + 1.0F);
}

// Returns body.operator()<kActivation>() for the activation that is only known when it runs.
template <typename Body>
auto with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kRelu:
      return body.template operator()<Activation::kRelu>();
    case Activation::kReluSquared:
      return body.template operator()<Activation::kReluSquared>();
    case Activation::kSilu:
      return body.template operator()<Activation::kSilu>();
    case Activation::kGelu:
      return body.template operator()<Activation::kGelu>();
    case Activation::kGeluTanh:
      return body.template operator()<Activation::kGeluTanh>();
    case Activation::kQuickGelu:
      return body.template operator()<Activation::kQuickGelu>();
    case Activation::kSigmoid:
      break;
  }
  return body.template operator()<Activation::kSigmoid>();
}

}  // namespace lamina::kernels::cuda
