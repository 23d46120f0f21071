#include "text/tokenizer/json_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer/vocabulary.h"

namespace lamina {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 32;
constexpr int64_t kMaxValues = 8'000'000;

[[noreturn]] void fail(const std::string& message) {
  throw Error(StatusCode::kInvalidArgument, message);
}

[[noreturn]] void fail_type(const char* key, const char* wanted) {
  fail(fmt::format("\"{}\" is not {}", key, wanted));
}

}  // namespace

Json parse_json(std::string_view text) {
  if (text.size() > kMaxJsonBytes) fail(fmt::format("more than {} bytes of JSON", kMaxJsonBytes));
  int64_t num_values = 0;
  const auto count = [&](int depth, Json::parse_event_t event, Json& /*parsed*/) {
    if (depth > kMaxDepth) fail(fmt::format("JSON nested deeper than {}", kMaxDepth));
    if (event != Json::parse_event_t::key && ++num_values > kMaxValues) {
      fail(fmt::format("JSON of more than {} values", kMaxValues));
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), count);
  } catch (const Json::exception& e) {
    fail(fmt::format("not JSON: {}", std::string_view(e.what()).substr(0, 160)));
  }
}

const Json& json_member(const Json& object, const char* key) {
  static const Json kNull;
  if (!object.is_object()) fail(fmt::format("the parent of \"{}\" is not an object", key));
  const auto member = object.find(key);
  return member == object.end() ? kNull : *member;
}

const std::string& json_string(const Json& object, const char* key) {
  const Json& member = json_member(object, key);
  if (!member.is_string()) fail_type(key, "a string");
  return member.get_ref<const std::string&>();
}

std::string json_string(const Json& object, const char* key, std::string_view fallback) {
  return json_member(object, key).is_null() ? std::string(fallback) : json_string(object, key);
}

bool json_bool(const Json& object, const char* key, bool fallback) {
  const Json& member = json_member(object, key);
  if (member.is_null()) return fallback;
  if (!member.is_boolean()) fail_type(key, "true or false");
  return member.get<bool>();
}

int64_t json_integer(const Json& object, const char* key) {
  const Json& member = json_member(object, key);
  if (!member.is_number_integer()) fail_type(key, "an integer");
  // Unsigned numbers above the signed range wrap to negative ones, which callers refuse.
  return member.get<int64_t>();
}

const Json& json_array(const Json& object, const char* key) {
  const Json& member = json_member(object, key);
  if (!member.is_array()) fail_type(key, "a list");
  return member;
}

}  // namespace lamina
