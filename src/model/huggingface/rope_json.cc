#include "model/huggingface/rope_json.h"

#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "model/weights/printable.h"

namespace lamina {
namespace {

constexpr NumberRange kTheta{1.0, 1e12};
constexpr NumberRange kFactor{1.0, 1e6};
constexpr NumberRange kPositive{1e-6, 1e6};
constexpr IntegerRange kPositions{1, INT32_MAX};

RopeType parse_rope_type(const std::string& name, const JsonFields& fields) {
  if (name == "default") return RopeType::kDefault;
  if (name == "linear") return RopeType::kLinear;
  if (name == "dynamic") return RopeType::kDynamic;
  if (name == "yarn") return RopeType::kYarn;
  if (name == "llama3") return RopeType::kLlama3;
  fields.refuse(fmt::format("rope type {} is not supported", printable(name)));
}

double required_factor(const JsonFields& fields) {
  const auto factor = fields.number("factor", kFactor);
  if (!factor) fields.refuse("'factor' is missing");
  return *factor;
}

void read_llama3(const JsonFields& fields, RopeConfig& rope) {
  rope.factor = required_factor(fields);
  rope.low_freq_factor = fields.number("low_freq_factor", kPositive).value_or(1.0);
  rope.high_freq_factor = fields.number("high_freq_factor", kPositive).value_or(4.0);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    fields.refuse(fmt::format("'high_freq_factor' {} is not above 'low_freq_factor' {}",
                              rope.high_freq_factor,
                              rope.low_freq_factor));
  }
  if (rope.original_max_position_embeddings == 0) {
    fields.refuse("'original_max_position_embeddings' is missing");
  }
}

void read_yarn(const JsonFields& fields, int32_t max_position_embeddings, RopeConfig& rope) {
  const int32_t original = rope.original_max_position_embeddings;
  // Without a factor the reference takes the ratio of the two lengths.
  if (!fields.has("factor") && original > 0) {
    rope.factor = std::max(1.0, static_cast<double>(max_position_embeddings) / original);
  } else {
    rope.factor = required_factor(fields);
  }
  rope.beta_fast = fields.number("beta_fast", kPositive).value_or(32.0);
  rope.beta_slow = fields.number("beta_slow", kPositive).value_or(1.0);
  if (rope.beta_fast < rope.beta_slow) {
    fields.refuse(
        fmt::format("'beta_fast' {} is below 'beta_slow' {}", rope.beta_fast, rope.beta_slow));
  }
  rope.attention_factor = fields.number("attention_factor", kPositive);
  rope.mscale = fields.number("mscale", {0.0, 1e6});
  rope.mscale_all_dim = fields.number("mscale_all_dim", {0.0, 1e6});
  rope.truncate = fields.boolean("truncate").value_or(true);
}

// The object that describes scaling, or null: `rope_parameters` of newer files, `rope_scaling` of
// older ones. A file with two that differ means one of them, and which is not ours to guess.
const nlohmann::json* scaling_object(const JsonFields& config) {
  const auto find = [&](std::string_view key) {
    const nlohmann::json* object = config.find(key);
    return object == nullptr || object->empty() ? nullptr : object;
  };
  const nlohmann::json* parameters = find("rope_parameters");
  const nlohmann::json* scaling = find("rope_scaling");
  if (parameters != nullptr && scaling != nullptr && *parameters != *scaling) {
    config.refuse("'rope_parameters' and 'rope_scaling' differ: remove one");
  }
  return parameters != nullptr ? parameters : scaling;
}

}  // namespace

RopeConfig read_rope(const JsonFields& config, int32_t max_position_embeddings) {
  static const nlohmann::json kEmpty = nlohmann::json::object();
  const nlohmann::json* scaling = scaling_object(config);
  const JsonFields fields(scaling != nullptr ? *scaling : kEmpty,
                          fmt::format("{}: rope parameters", config.where()));
  for (const char* per_layer : {"full_attention", "sliding_attention"}) {
    if (fields.has(per_layer)) {
      fields.refuse("separate parameters for each layer type are not supported");
    }
  }
  RopeConfig rope;
  const auto name = fields.text("rope_type");
  rope.type = parse_rope_type(name ? *name : fields.text("type").value_or("default"), fields);
  const auto own_theta = fields.number("rope_theta", kTheta);
  rope.theta = own_theta ? *own_theta : config.number("rope_theta", kTheta).value_or(10000.0);
  const auto own_part = fields.number("partial_rotary_factor", {0.0, 1.0});
  rope.partial_rotary_factor =
      own_part ? *own_part : config.number("partial_rotary_factor", {0.0, 1.0}).value_or(1.0);
  const auto original = fields.integer("original_max_position_embeddings", kPositions);
  rope.original_max_position_embeddings =
      original ? *original
               : config.integer("original_max_position_embeddings", kPositions).value_or(0);
  switch (rope.type) {
    case RopeType::kDefault:
      break;
    case RopeType::kLinear:
    case RopeType::kDynamic:
      rope.factor = required_factor(fields);
      break;
    case RopeType::kYarn:
      read_yarn(fields, max_position_embeddings, rope);
      break;
    case RopeType::kLlama3:
      read_llama3(fields, rope);
      break;
  }
  return rope;
}

}  // namespace lamina
