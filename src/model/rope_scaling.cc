#include "model/rope_scaling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace lamina {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;

void expect(bool holds, std::string_view field, double value, std::string_view wanted) {
  if (holds) return;
  throw Error(StatusCode::kInvalidArgument,
              fmt::format("rope: {} is {}; it must be {}", field, value, wanted));
}

int32_t original_length(const RopeConfig& rope, int32_t max_position_embeddings) {
  return rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings
                                                   : max_position_embeddings;
}

int32_t rotary_dim_of(const RopeConfig& rope, int32_t head_dim) {
  const double factor = rope.partial_rotary_factor;
  expect(factor > 0.0 && factor <= 1.0, "partial_rotary_factor", factor, "in (0, 1]");
  const auto rotary_dim = static_cast<int32_t>(head_dim * factor);
  expect(rotary_dim > 0 && rotary_dim % 2 == 0, "rotary width", rotary_dim, "even and positive");
  return rotary_dim;
}

void validate(const RopeConfig& rope, int32_t original) {
  expect(std::isfinite(rope.theta) && rope.theta > 1.0, "rope_theta", rope.theta, "above 1");
  if (rope.type == RopeType::kDefault) return;
  expect(std::isfinite(rope.factor) && rope.factor > 0.0, "factor", rope.factor, "positive");
  if (rope.type == RopeType::kLinear) return;
  expect(original > 0, "original_max_position_embeddings", original, "positive");
  if (rope.type == RopeType::kLlama3) {
    expect(rope.low_freq_factor > 0.0, "low_freq_factor", rope.low_freq_factor, "positive");
    expect(rope.high_freq_factor > rope.low_freq_factor,
           "high_freq_factor",
           rope.high_freq_factor,
           "above low_freq_factor");
  }
  if (rope.type == RopeType::kYarn) {
    expect(rope.beta_slow > 0.0, "beta_slow", rope.beta_slow, "positive");
    expect(rope.beta_fast > rope.beta_slow, "beta_fast", rope.beta_fast, "above beta_slow");
  }
}

std::vector<double> plain_frequencies(double theta, int32_t rotary_dim) {
  std::vector<double> inv_freq;
  for (int32_t i = 0; i < rotary_dim; i += 2) {
    inv_freq.push_back(std::pow(theta, -static_cast<double>(i) / rotary_dim));
  }
  return inv_freq;
}

// Wavelengths that fit often into the original context stay, those that do not fit are stretched,
// and the band between is blended.
void scale_llama3(const RopeConfig& rope, int32_t original, std::vector<double>& inv_freq) {
  for (double& freq : inv_freq) {
    const double turns = original * freq / kTwoPi;  // rotations within the original context
    const double kept = std::clamp(
        (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    freq *= kept + (1.0 - kept) / rope.factor;
  }
}

// As llama3, but the blend is linear in the pair's index between the pairs that make beta_fast and
// beta_slow rotations within the original context.
void scale_yarn(const RopeConfig& rope, int32_t original, std::vector<double>& inv_freq) {
  const double rotary_dim = 2.0 * static_cast<double>(inv_freq.size());
  const auto pair_with_turns = [&](double turns) {
    return rotary_dim * std::log(original / (turns * kTwoPi)) / (2.0 * std::log(rope.theta));
  };
  double low = pair_with_turns(rope.beta_fast);
  double high = pair_with_turns(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  // The bound of `high` counts elements, not pairs; the published code has it so.
  low = std::max(low, 0.0);
  high = std::min(high, rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inv_freq[i] *= (1.0 - stretched) + stretched / rope.factor;
  }
}

double yarn_magnitude(const RopeConfig& rope) {
  const auto magnitude_of = [&](double mscale) {
    return rope.factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(rope.factor) + 1.0;
  };
  if (rope.attention_factor) return *rope.attention_factor;
  const double mscale = rope.mscale.value_or(0.0);  // 0 counts as absent
  const double mscale_all_dim = rope.mscale_all_dim.value_or(0.0);
  if (mscale == 0.0 || mscale_all_dim == 0.0) return magnitude_of(1.0);
  return magnitude_of(mscale) / magnitude_of(mscale_all_dim);
}

}  // namespace

RopeTableAttrs rope_frequencies(const RopeConfig& rope,
                                int32_t head_dim,
                                int32_t max_position_embeddings) {
  const int32_t original = original_length(rope, max_position_embeddings);
  validate(rope, original);
  std::vector<double> inv_freq = plain_frequencies(rope.theta, rotary_dim_of(rope, head_dim));
  double magnitude = 1.0;
  switch (rope.type) {
    case RopeType::kDefault:
    case RopeType::kDynamic:
      break;
    case RopeType::kLinear:
      for (double& freq : inv_freq) freq /= rope.factor;
      break;
    case RopeType::kYarn:
      scale_yarn(rope, original, inv_freq);
      magnitude = yarn_magnitude(rope);
      break;
    case RopeType::kLlama3:
      scale_llama3(rope, original, inv_freq);
      break;
  }
  RopeTableAttrs attrs{{}, static_cast<float>(magnitude)};
  for (const double freq : inv_freq) attrs.inv_freq.push_back(static_cast<float>(freq));
  return attrs;
}

int32_t max_exact_positions(const ModelConfig& config) {
  const int32_t stated = config.max_position_embeddings;
  const int32_t original = original_length(config.rope, stated);
  switch (config.rope.type) {
    case RopeType::kDefault:
    case RopeType::kLinear:
    case RopeType::kLlama3:
      return stated;
    case RopeType::kDynamic:
      return std::min(original, stated);
    case RopeType::kYarn: {
      constexpr double kMost = std::numeric_limits<int32_t>::max();
      const double stretched = std::clamp(original * config.rope.factor, 0.0, kMost);
      return std::max(stated, static_cast<int32_t>(stretched));
    }
  }
  return stated;
}

}  // namespace lamina
