// What graph/ states about an operator and kernels/ computes by: the attributes that both rooms
// need to name. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace lamina {

enum class NormKind : uint8_t {
  kRms,    // x / sqrt(mean(x^2) + eps)
  kLayer,  // (x - mean(x)) / sqrt(variance(x) + eps)
};
struct NormAttrs {
  NormKind kind = NormKind::kRms;
  float eps = 1e-6F;
  float weight_offset = 0.0F;  // added to each weight (gemma stores weight - 1)
};

enum class Activation : uint8_t {
  kRelu,
  kReluSquared,
  kSilu,       // x * sigmoid(x)
  kGelu,       // x * Phi(x), by erf
  kGeluTanh,   // its approximation by tanh
  kQuickGelu,  // x * sigmoid(1.702 x)
  kSigmoid,
};
std::string_view activation_name(Activation activation);
// By the names that model configurations use ("silu", "gelu_new"); nothing for another name.
std::optional<Activation> parse_activation(std::string_view name);
struct ActivationAttrs {
  Activation activation = Activation::kSilu;
};

// activation(gate) * up. With a limit, gpt_oss's form: gate is cut at the limit, up at both signs
// of it, and the result is activation(gate) * (up + 1).
struct GatedActivationAttrs {
  Activation activation = Activation::kSilu;
  std::optional<float> limit = std::nullopt;

  friend bool operator==(const GatedActivationAttrs&, const GatedActivationAttrs&) = default;
};

enum class RouteScoring : uint8_t { kSoftmax, kSigmoid };
// Which experts a token goes to and with which weights: the `top_k` of the largest score (+ bias,
// which takes part in choosing only), the smaller index among equals. Experts may stand in equal
// groups of which only the best `top_groups` take part: by their best score, or with a bias by the
// sum of their best two.
struct RouteAttrs {
  int32_t top_k = 1;
  RouteScoring scoring = RouteScoring::kSoftmax;  // over all experts
  bool renormalize = false;                       // chosen weights are divided by their sum
  float scale = 1.0F;                             // multiplies the weights
  int32_t num_groups = 1;
  int32_t top_groups = 1;
};

}  // namespace lamina
