// Reading JSON of unknown origin: parsed within limits, and looked at through functions that throw
// an Error naming the member instead of the library's exceptions. For the .cc files of text/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace lamina {

inline constexpr size_t kMaxJsonBytes = size_t{128} << 20;

// Throws Error kInvalidArgument: not JSON, deeper than 32 or more than 8 million values.
nlohmann::json parse_json(std::string_view text);

// The member `key` of `object`, or null where there is none. Throws Error kInvalidArgument if
// `object` is not an object.
const nlohmann::json& json_member(const nlohmann::json& object, const char* key);

// All throw Error kInvalidArgument, naming `key`, if the member is of another type; those with a
// fallback return it where the member is absent or null.
const std::string& json_string(const nlohmann::json& object, const char* key);
std::string json_string(const nlohmann::json& object, const char* key, std::string_view fallback);
bool json_bool(const nlohmann::json& object, const char* key, bool fallback);
int64_t json_integer(const nlohmann::json& object, const char* key);
const nlohmann::json& json_array(const nlohmann::json& object, const char* key);

}  // namespace lamina
