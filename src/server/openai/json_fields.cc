#include "server/openai/json_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "server/openai/api_error.h"

namespace lamina::server {

namespace {

using Json = nlohmann::json;

// One linear pass before parsing, so that no deep or huge tree is ever built. Text that is not
// JSON may be miscounted; the parser refuses it anyway.
void check_shape(std::string_view body) {
  int depth = 0;
  size_t num_values = 1;
  bool in_string = false;
  for (size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{' || c == ',') ++num_values;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (depth > kMaxJsonDepth) {
      throw bad_body(fmt::format("the JSON body is nested deeper than {} levels", kMaxJsonDepth));
    }
    if (num_values > kMaxJsonValues) {
      throw bad_body(fmt::format("the JSON body holds more than {} values", kMaxJsonValues));
    }
  }
}

// An integer, also where it was written as 16.0; nullopt for anything else.
std::optional<int64_t> as_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto wide = value.get<uint64_t>();
    if (wide > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(wide);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto real = value.get<double>();
  if (std::trunc(real) != real || std::abs(real) > 0x1.0p53) return std::nullopt;
  return static_cast<int64_t>(real);
}

// what() opens with "[json.exception...] " and repeats the last token, which may be all of the
// body.
std::string_view reason_of(const Json::exception& error) {
  constexpr size_t kMaxBytes = 200;
  const std::string_view what = error.what();
  const size_t id_end = what.find("] ");
  return what.substr(id_end == std::string_view::npos ? 0 : id_end + 2, kMaxBytes);
}

ApiError wrong_type(const std::string& name, std::string_view expected, const Json& value) {
  return bad_field(name, fmt::format("{} must be {}, got {}", name, expected, excerpt(value)));
}

}  // namespace

std::string excerpt(const Json& value) {
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  if (value.is_object()) return "an object";
  constexpr size_t kMaxBytes = 60;
  if (value.is_string() && value.get_ref<const std::string&>().size() > kMaxBytes) {
    return fmt::format("a string of {} bytes", value.get_ref<const std::string&>().size());
  }
  return value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

Json parse_json_object(std::string_view body) {
  check_shape(body);
  Json value;
  try {
    value = Json::parse(body);
  } catch (const Json::exception& error) {
    throw bad_body(fmt::format("the body is not valid JSON: {}", reason_of(error)));
  }
  if (!value.is_object()) {
    throw bad_body(fmt::format("the body must be a JSON object, got {}", excerpt(value)));
  }
  return value;
}

FieldReader::FieldReader(const Json& object, std::string path)
    : object_(&object), path_(std::move(path)) {}

const Json* FieldReader::find(const char* name) const {
  const auto it = object_->find(name);
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

bool FieldReader::boolean(const char* name, bool fallback) const {
  const Json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) throw wrong_type(full_name(name), "true or false", *value);
  return value->get<bool>();
}

std::optional<int64_t> FieldReader::integer(const char* name, int64_t min, int64_t max) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = as_integer(*value);
  if (!number || *number < min || *number > max) {
    throw wrong_type(full_name(name), fmt::format("an integer from {} to {}", min, max), *value);
  }
  return number;
}

std::optional<double> FieldReader::number(const char* name, const NumberRange& range) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const double number =
      value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
  const bool above = range.min_is_excluded ? number > range.min : number >= range.min;
  if (!above || !(number <= range.max)) {
    throw wrong_type(full_name(name),
                     fmt::format("a number {} {}, at most {}",
                                 range.min_is_excluded ? "above" : "from",
                                 range.min,
                                 range.max),
                     *value);
  }
  return number;
}

std::optional<std::string> FieldReader::string(const char* name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) throw wrong_type(full_name(name), "a string", *value);
  return value->get<std::string>();
}

std::vector<int32_t> read_token_ids(const Json& value,
                                    const std::string& name,
                                    int32_t vocab_size) {
  if (!value.is_array()) throw wrong_type(name, "a list of token ids", value);
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& element : value) {
    const std::optional<int64_t> id = as_integer(element);
    if (!id || *id < 0 || *id >= vocab_size) {
      throw bad_field(name,
                      fmt::format("{}[{}] must be a token id from 0 to {}, got {}",
                                  name,
                                  ids.size(),
                                  vocab_size - 1,
                                  excerpt(element)));
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

std::optional<std::vector<int32_t>> FieldReader::token_ids(const char* name,
                                                           int32_t vocab_size,
                                                           size_t max_count) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_array() && value->size() > max_count) {
    throw bad_field(
        full_name(name),
        fmt::format(
            "{} may hold at most {} token ids, got {}", full_name(name), max_count, value->size()));
  }
  return read_token_ids(*value, full_name(name), vocab_size);
}

}  // namespace lamina::server
