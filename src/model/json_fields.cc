#include "model/json_fields.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/weights/printable.h"

namespace lamina {

nlohmann::json parse_json_object(std::string_view text, std::string_view source) {
  constexpr int kMaxDepth = 64;
  constexpr int kMaxEvents = 1 << 20;  // an empty list is 3 bytes of text, but some 40 of memory
  int num_events = 0;
  const auto check_limits = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxDepth) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("{}: nested deeper than {} levels", source, kMaxDepth));
    }
    if (++num_events > kMaxEvents) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("{}: more than {} values", source, kMaxEvents));
    }
    return true;
  };
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(text, check_limits);
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("{}: not JSON at byte {}", source, error.byte));
  } catch (const nlohmann::json::exception&) {  // a number out of range
    throw Error(StatusCode::kInvalidArgument, fmt::format("{}: not valid JSON", source));
  }
  if (!value.is_object()) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("{}: not a JSON object", source));
  }
  return value;
}

JsonFields::JsonFields(const nlohmann::json& value, std::string where)
    : object_(&value), where_(std::move(where)) {
  if (!value.is_object()) refuse("not a JSON object");
}

const nlohmann::json* JsonFields::find(std::string_view key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

bool JsonFields::mentions(std::string_view key) const {
  return object_->find(key) != object_->end();
}

std::optional<int32_t> JsonFields::integer(std::string_view key, IntegerRange range) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const bool fits =
      value->is_number_integer() &&
      (!value->is_number_unsigned() || value->get<uint64_t>() <= uint64_t{INT32_MAX}) &&
      value->get<int64_t>() >= range.low && value->get<int64_t>() <= range.high;
  if (!fits) refuse_value(key, fmt::format("an integer from {} to {}", range.low, range.high));
  return value->get<int32_t>();
}

int32_t JsonFields::required_integer(std::string_view key, IntegerRange range) const {
  const auto value = integer(key, range);
  if (!value) refuse(fmt::format("'{}' is missing", key));
  return *value;
}

std::optional<double> JsonFields::number(std::string_view key, NumberRange range) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : 0.0;
  if (!value->is_number() || !(number >= range.low && number <= range.high)) {
    refuse_value(key, fmt::format("a number from {} to {}", range.low, range.high));
  }
  return number;
}

std::optional<bool> JsonFields::boolean(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse_value(key, "true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonFields::text(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse_value(key, "a string");
  return value->get<std::string>();
}

void JsonFields::refuse(const std::string& message) const {
  throw Error(StatusCode::kInvalidArgument, fmt::format("{}: {}", where_, message));
}

void JsonFields::refuse_value(std::string_view key, std::string_view expected) const {
  const std::string shown =
      find(key)->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  refuse(fmt::format("'{}' is {}, expected {}", key, printable(shown), expected));
}

}  // namespace lamina
