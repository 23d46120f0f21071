#include "server/openai/generation_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "server/openai/json_fields.h"

namespace lamina::server {

namespace {

using Json = nlohmann::json;
using namespace std::string_view_literals;

// What parse_generation_options() reads or refuses, and fields without an effect on purpose.
constexpr std::array kSharedFields = {"model"sv,
                                      "stream"sv,
                                      "stream_options"sv,
                                      "temperature"sv,
                                      "top_p"sv,
                                      "top_k"sv,
                                      "min_p"sv,
                                      "repetition_penalty"sv,
                                      "presence_penalty"sv,
                                      "frequency_penalty"sv,
                                      "logit_bias"sv,
                                      "n"sv,
                                      "ignore_eos"sv,
                                      "stop"sv,
                                      "stop_token_ids"sv,
                                      "include_stop_str_in_output"sv,
                                      "skip_special_tokens"sv,
                                      "max_tokens"sv,
                                      "max_completion_tokens"sv,
                                      "min_tokens"sv,
                                      "seed"sv,
                                      "return_token_ids"sv,
                                      "add_special_tokens"sv,
                                      "logprobs"sv,
                                      "response_format"sv,
                                      "user"sv};

float or_default(std::optional<double> given, std::optional<float> model_default, float fallback) {
  return given ? static_cast<float>(*given) : model_default.value_or(fallback);
}

std::vector<std::pair<int32_t, float>> parse_logit_bias(const FieldReader& fields,
                                                        int32_t vocab_size) {
  std::vector<std::pair<int32_t, float>> bias;
  const Json* value = fields.find("logit_bias");
  if (value == nullptr) return bias;
  if (!value->is_object() || value->size() > kMaxListedTokens) {
    throw bad_field("logit_bias",
                    fmt::format("logit_bias must be an object of at most {} token ids, got {}",
                                kMaxListedTokens,
                                excerpt(*value)));
  }
  for (const auto& [key, element] : value->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocab_size) {
      throw bad_field("logit_bias",
                      fmt::format("logit_bias keys must be token ids from 0 to {}, got {}",
                                  vocab_size - 1,
                                  excerpt(Json(key))));
    }
    const double amount = element.is_number() ? element.get<double>() : 1e9;
    if (!(amount >= -100 && amount <= 100)) {
      throw bad_field("logit_bias",
                      fmt::format("logit_bias[\"{}\"] must be a number from -100 to 100, got {}",
                                  id,
                                  excerpt(element)));
    }
    bias.emplace_back(id, static_cast<float>(amount));
  }
  return bias;
}

SamplingParams parse_sampling(const FieldReader& fields, const ParseContext& context) {
  const GenerationDefaults& defaults = context.defaults;
  SamplingParams sampling;
  sampling.temperature =
      or_default(fields.number("temperature", {0, 2}), defaults.temperature, 1.0F);
  sampling.top_p = or_default(fields.number("top_p", {0, 1, true}), defaults.top_p, 1.0F);
  sampling.min_p = or_default(fields.number("min_p", {0, 1}), defaults.min_p, 0.0F);
  sampling.repetition_penalty = or_default(
      fields.number("repetition_penalty", {0, 100, true}), defaults.repetition_penalty, 1.0F);
  sampling.presence_penalty =
      or_default(fields.number("presence_penalty", {-2, 2}), std::nullopt, 0.0F);
  sampling.frequency_penalty =
      or_default(fields.number("frequency_penalty", {-2, 2}), std::nullopt, 0.0F);
  constexpr int64_t kMaxTopK = std::numeric_limits<int32_t>::max();
  sampling.top_k = static_cast<int32_t>(
      fields.integer("top_k", -1, kMaxTopK).value_or(defaults.top_k.value_or(0)));
  sampling.logit_bias = parse_logit_bias(fields, context.vocab_size);
  return sampling;
}

std::string stop_string(const Json& value) {
  if (!value.is_string() || value.get_ref<const std::string&>().empty() ||
      value.get_ref<const std::string&>().size() > kMaxStopBytes) {
    throw bad_field(
        "stop",
        fmt::format(
            "each stop string must be of 1 to {} bytes, got {}", kMaxStopBytes, excerpt(value)));
  }
  return value.get<std::string>();
}

std::vector<std::string> parse_stop(const FieldReader& fields, bool has_tokenizer) {
  std::vector<std::string> stop;
  const Json* value = fields.find("stop");
  if (value == nullptr) return stop;
  if (value->is_string()) {
    stop.push_back(stop_string(*value));
  } else if (value->is_array() && value->size() <= kMaxStopStrings) {
    for (const Json& element : *value) stop.push_back(stop_string(element));
  } else {
    throw bad_field("stop",
                    fmt::format("stop must be a string or a list of at most {} strings, got {}",
                                kMaxStopStrings,
                                excerpt(*value)));
  }
  if (!stop.empty() && !has_tokenizer) {
    throw bad_field("stop",
                    "stop strings need a tokenizer, and the server runs with "
                    "--skip-tokenizer-init; use stop_token_ids");
  }
  return stop;
}

void parse_streaming(const FieldReader& fields, GenerationOptions* options) {
  options->stream = fields.boolean("stream", false);
  const Json* value = fields.find("stream_options");
  if (value == nullptr) return;
  if (!value->is_object()) {
    throw bad_field("stream_options",
                    fmt::format("stream_options must be an object, got {}", excerpt(*value)));
  }
  if (!options->stream) {
    throw bad_field("stream_options", "stream_options is only allowed when stream is true");
  }
  const FieldReader stream_fields(*value, "stream_options.");
  options->include_usage = stream_fields.boolean("include_usage", false);
  options->continuous_usage = stream_fields.boolean("continuous_usage_stats", false);
}

void refuse_unsupported(const Json& body) {
  constexpr std::array kUnsupported = {"structured_outputs",
                                       "guided_json",
                                       "guided_regex",
                                       "guided_choice",
                                       "guided_grammar",
                                       "allowed_token_ids",
                                       "bad_words",
                                       "truncate_prompt_tokens",
                                       "prompt_logprobs",
                                       "logits_processors",
                                       "thinking_token_budget",
                                       "use_beam_search"};
  for (const char* name : kUnsupported) refuse_field(body, name, "is not supported");
  refuse_field(body, "response_format", "other than {\"type\": \"text\"} is not supported");
}

}  // namespace

void log_ignored_fields(const Json& body, std::span<const std::string_view> known) {
  for (const auto& [name, value] : body.items()) {
    const bool is_shared =
        std::find(kSharedFields.begin(), kSharedFields.end(), name) != kSharedFields.end();
    if (is_shared || std::find(known.begin(), known.end(), name) != known.end()) continue;
    log_debug("ignoring the request field {}", excerpt(name));
  }
}

void refuse_field(const Json& body, const char* name, const char* reason) {
  const auto it = body.find(name);
  if (it == body.end() || it->is_null() || *it == Json(false)) return;
  if (it->is_structured() && it->empty()) return;
  if (it->is_string() && it->get_ref<const std::string&>().empty()) return;
  if (*it == Json{{"type", "text"}}) return;
  throw bad_field(name, fmt::format("{} {}", name, reason), "unsupported_parameter");
}

ApiError unknown_model(const std::string& name, const std::vector<std::string>& served_names) {
  constexpr size_t kMaxShown = 200;
  return {404,
          "invalid_request_error",
          fmt::format("the model '{}' does not exist; this server has: {}",
                      name.substr(0, kMaxShown),
                      fmt::join(served_names, ", ")),
          "model",
          "model_not_found"};
}

std::string resolve_model(const Json& body, const ParseContext& context) {
  const std::string name = FieldReader(body).string("model").value_or("");
  if (name.empty()) return context.served_model_names.front();
  for (const std::string& served : context.served_model_names) {
    if (served == name) return served;
  }
  throw unknown_model(name, context.served_model_names);
}

GenerationOptions parse_generation_options(const Json& body, const ParseContext& context) {
  const FieldReader fields(body);
  GenerationOptions options;
  options.model = resolve_model(body, context);
  refuse_unsupported(body);
  parse_streaming(fields, &options);

  GenerationRequest& generation = options.generation;
  generation.sampling = parse_sampling(fields, context);
  generation.n = static_cast<int32_t>(fields.integer("n", 1, kMaxChoices).value_or(1));
  generation.ignore_eos = fields.boolean("ignore_eos", false);
  generation.stop = parse_stop(fields, context.has_tokenizer);
  generation.stop_ids = fields.token_ids("stop_token_ids", context.vocab_size, kMaxListedTokens)
                            .value_or(std::vector<int32_t>());
  generation.include_stop_str_in_output = fields.boolean("include_stop_str_in_output", false);
  generation.skip_special_tokens = fields.boolean("skip_special_tokens", true);

  constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();
  const auto max_tokens = fields.integer("max_tokens", 0, kMaxTokens);
  const auto max_completion_tokens = fields.integer("max_completion_tokens", 0, kMaxTokens);
  if (const auto given = max_completion_tokens ? max_completion_tokens : max_tokens) {
    options.max_tokens = static_cast<int32_t>(*given);
  }
  generation.min_tokens =
      static_cast<int32_t>(fields.integer("min_tokens", 0, kMaxTokens).value_or(0));
  if (options.max_tokens && generation.min_tokens > *options.max_tokens) {
    throw bad_field("min_tokens",
                    fmt::format("min_tokens ({}) is above max_tokens ({})",
                                generation.min_tokens,
                                *options.max_tokens));
  }
  if (const auto seed = fields.integer(
          "seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max())) {
    options.seed = static_cast<uint64_t>(*seed);
  }
  // Without a tokenizer the ids are the only answer there is.
  options.return_token_ids = fields.boolean("return_token_ids", false) || !context.has_tokenizer;
  return options;
}

}  // namespace lamina::server
