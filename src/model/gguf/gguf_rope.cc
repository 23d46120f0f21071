#include "model/gguf/gguf_rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/weights/printable.h"

namespace lamina {
namespace {

// What llama3 scaling divides frequency theta^(-2i / rotary_dim) by (the published formula: short
// waves stay, long waves are stretched by `factor`, a linear ramp between).
double llama3_divisor(const RopeConfig& rope, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double original = rope.original_max_position_embeddings;
  if (wavelength < original / rope.high_freq_factor) return 1.0;
  if (wavelength > original / rope.low_freq_factor) return rope.factor;
  const double smooth = (original / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
  return 1.0 / ((1.0 - smooth) / rope.factor + smooth);
}

bool explains(const RopeConfig& rope, std::span<const float> divisors) {
  constexpr double kTolerance = 1e-4;  // relative; writers compute in f32
  const auto rotary_dim = static_cast<double>(2 * divisors.size());
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / rotary_dim);
    const double expected = llama3_divisor(rope, frequency);
    if (!(std::abs(divisors[i] - expected) <= kTolerance * expected)) return false;
  }
  return true;
}

// The original context lengths of published models with this scaling, powers of two.
constexpr int32_t kMinOriginal = 256;
constexpr int32_t kMaxOriginal = 1 << 20;

void read_divisors(const GgufMetadata& metadata,
                   std::span<const float> divisors,
                   RopeConfig& rope) {
  if (rope.type != RopeType::kDefault) {
    metadata.refuse("'rope_freqs.weight' beside another rope scaling is not supported");
  }
  if (std::all_of(divisors.begin(), divisors.end(), [](float d) { return d == 1.0F; })) return;
  RopeConfig llama3 = rope;
  llama3.type = RopeType::kLlama3;
  llama3.factor = *std::max_element(divisors.begin(), divisors.end());
  llama3.low_freq_factor = 1.0;
  llama3.high_freq_factor = 4.0;
  for (int32_t original = kMinOriginal; original <= kMaxOriginal; original *= 2) {
    llama3.original_max_position_embeddings = original;
    if (explains(llama3, divisors)) {
      rope = llama3;
      return;
    }
  }
  metadata.refuse("'rope_freqs.weight' holds other factors than llama3 scaling, not supported");
}

void refuse_unless_one(const GgufMetadata& metadata, const std::string& key) {
  if (metadata.number(key, -1e9, 1e9).value_or(1.0) != 1.0) {
    metadata.refuse(fmt::format("'{}' is not supported", key));
  }
}

void read_scaling(const GgufMetadata& metadata, const std::string& prefix, RopeConfig& rope) {
  // Without a type, a factor is linear; "scale_linear" is its older spelling.
  const std::string type = metadata.text(prefix + "scaling.type").value_or("linear");
  const auto old_factor = metadata.number(prefix + "scale_linear", 1.0, 1e6);
  const auto factor = metadata.number(prefix + "scaling.factor", 1.0, 1e6);
  for (const char* key :
       {"scaling.attn_factor", "scaling.yarn_attn_factor", "scaling.yarn_ext_factor"}) {
    refuse_unless_one(metadata, prefix + key);
  }
  if (type == "none") return;
  if (type == "linear") {
    rope.factor = factor.value_or(old_factor.value_or(1.0));
    if (rope.factor != 1.0) rope.type = RopeType::kLinear;
    return;
  }
  if (type != "yarn") {
    metadata.refuse(fmt::format("rope type {} is not supported", printable(type)));
  }
  if (!factor) metadata.refuse(fmt::format("'{}scaling.factor' is missing", prefix));
  if (metadata.has(prefix + "scaling.yarn_log_multiplier")) {
    metadata.refuse(fmt::format("'{}scaling.yarn_log_multiplier' is not supported", prefix));
  }
  rope.type = RopeType::kYarn;
  rope.factor = *factor;
  rope.original_max_position_embeddings =
      metadata.integer(prefix + "scaling.original_context_length", 1, INT32_MAX).value_or(0);
  rope.beta_fast = metadata.number(prefix + "scaling.yarn_beta_fast", 1e-6, 1e6).value_or(32.0);
  rope.beta_slow = metadata.number(prefix + "scaling.yarn_beta_slow", 1e-6, 1e6).value_or(1.0);
}

}  // namespace

RopeConfig read_gguf_rope(const GgufMetadata& metadata,
                          std::string_view architecture,
                          int32_t head_dim,
                          std::span<const float> frequency_divisors) {
  const std::string prefix = fmt::format("{}.rope.", architecture);
  RopeConfig rope;
  rope.theta = metadata.number(prefix + "freq_base", 1.0, 1e12).value_or(10000.0);
  const int32_t rotary_dim =
      metadata.integer(prefix + "dimension_count", 2, head_dim).value_or(head_dim);
  if (architecture == "llama" && rotary_dim != head_dim) {
    // Its pairs of neighbours end there, while the writer reorders whole heads: no order of rows is
    // right for both.
    metadata.refuse(fmt::format("'{}dimension_count' is {} of a head's {} elements, not supported",
                                prefix,
                                rotary_dim,
                                head_dim));
  }
  rope.partial_rotary_factor = static_cast<double>(rotary_dim) / head_dim;
  read_scaling(metadata, prefix, rope);
  if (frequency_divisors.empty()) return rope;
  if (frequency_divisors.size() != static_cast<size_t>(rotary_dim) / 2) {
    metadata.refuse(fmt::format("'rope_freqs.weight' has {} elements, expected {}",
                                frequency_divisors.size(),
                                rotary_dim / 2));
  }
  read_divisors(metadata, frequency_divisors, rope);
  return rope;
}

}  // namespace lamina
