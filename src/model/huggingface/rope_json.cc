#include "model/huggingface/rope_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

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

// One set of parameters; what `fields` does not say, the top level of `config` may.
RopeConfig read_parameters(const JsonFields& fields,
                           const JsonFields& config,
                           const ConfigDefaults& defaults,
                           int32_t max_position_embeddings) {
  const auto number = [&](std::initializer_list<const char*> names, NumberRange range) {
    for (const JsonFields* place : {&fields, &config}) {
      for (const char* name : names) {
        if (const auto value = place->number(name, range)) return value;
      }
    }
    return std::optional<double>();
  };
  RopeConfig rope;
  const auto name = fields.text("rope_type");
  rope.type = parse_rope_type(name ? *name : fields.text("type").value_or("default"), fields);
  rope.theta = number({"rope_theta", "rotary_emb_base"}, kTheta).value_or(defaults.rope_theta);
  rope.partial_rotary_factor = number({"partial_rotary_factor", "rotary_pct"}, {0.0, 1.0})
                                   .value_or(defaults.partial_rotary_factor);
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

}  // namespace

void read_rope(const JsonFields& config, const ConfigDefaults& defaults, ModelConfig& model) {
  static const nlohmann::json kEmpty = nlohmann::json::object();
  const nlohmann::json* scaling = scaling_object(config);
  const JsonFields fields(scaling != nullptr ? *scaling : kEmpty,
                          fmt::format("{}: rope parameters", config.where()));
  const auto read = [&](const JsonFields& parameters) {
    return read_parameters(parameters, config, defaults, model.max_position_embeddings);
  };
  if (!fields.has("full_attention") && !fields.has("sliding_attention")) {
    model.rope = read(fields);
    return;
  }
  if (!defaults.own_sliding_rope) {
    fields.refuse("separate parameters for each layer type are not supported");
  }
  const auto read_type = [&](const char* layer_type) {
    const nlohmann::json* object = fields.find(layer_type);
    if (object == nullptr) fields.refuse(fmt::format("'{}' is missing", layer_type));
    return read(JsonFields(*object, fmt::format("{}: {}", fields.where(), layer_type)));
  };
  model.rope = read_type("full_attention");
  model.sliding_rope = read_type("sliding_attention");
}

}  // namespace lamina
