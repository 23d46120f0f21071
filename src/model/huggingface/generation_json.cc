#include "model/huggingface/generation_json.h"

#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "model/json_fields.h"

namespace lamina {
namespace {

constexpr double kMaxNumber = 1e6;
constexpr double kSmallest = 1e-6;  // stands for "above 0"

// One id or a list of ids, those outside the vocabulary left out.
std::vector<int32_t> read_ids(const JsonFields& fields, std::string_view key, int32_t vocab_size) {
  const nlohmann::json* value = fields.find(key);
  if (value == nullptr) return {};
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  std::vector<int32_t> ids;
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer()) fields.refuse_value(key, "a token id or a list of them");
    const bool known =
        id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab_size);
    if (!known) continue;
    const auto token = id.get<int32_t>();
    if (std::find(ids.begin(), ids.end(), token) == ids.end()) ids.push_back(token);
  }
  return ids;
}

std::optional<float> read_float(const JsonFields& fields, std::string_view key, NumberRange range) {
  const auto value = fields.number(key, range);
  if (!value) return std::nullopt;
  return static_cast<float>(*value);
}

}  // namespace

GenerationDefaults parse_generation_json(std::string_view text,
                                         const std::string& source,
                                         int32_t vocab_size) {
  const nlohmann::json json = parse_json_object(text, source);
  const JsonFields fields(json, source);
  GenerationDefaults defaults;
  defaults.eos_ids = read_ids(fields, "eos_token_id", vocab_size);
  const std::vector<int32_t> bos_ids = read_ids(fields, "bos_token_id", vocab_size);
  if (!bos_ids.empty()) defaults.bos_id = bos_ids.front();
  defaults.temperature = read_float(fields, "temperature", {0.0, kMaxNumber});
  defaults.top_p = read_float(fields, "top_p", {kSmallest, 1.0});
  defaults.min_p = read_float(fields, "min_p", {0.0, 1.0});
  defaults.repetition_penalty = read_float(fields, "repetition_penalty", {kSmallest, kMaxNumber});
  defaults.top_k = fields.integer("top_k", {-1, INT32_MAX});
  return defaults;
}

}  // namespace lamina
