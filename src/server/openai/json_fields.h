// Reading JSON bodies that strangers sent: parse_json_object() bounds depth and size before the
// parser runs, FieldReader takes typed, ranged fields out of an object. Both throw ApiError 400
// naming the field, its value and what is allowed. Used by the request parsers. Confined to one
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace lamina::server {

inline constexpr int kMaxJsonDepth = 64;
// Values in one body: a parsed value takes up to some 100 bytes where its text took two.
inline constexpr size_t kMaxJsonValues = 2'000'000;

// The body as an object. Throws ApiError for anything else, and for text that is not UTF-8.
nlohmann::json parse_json_object(std::string_view body);

struct NumberRange {
  double min = 0;
  double max = 0;
  bool min_is_excluded = false;
};

// A field that is absent or null is nullopt (or the fallback) everywhere below.
class FieldReader {
 public:
  // `object` outlives the reader. `path` stands before field names in errors: "messages[3]."
  explicit FieldReader(const nlohmann::json& object, std::string path = {});

  [[nodiscard]] const nlohmann::json* find(const char* name) const;
  [[nodiscard]] bool boolean(const char* name, bool fallback) const;
  // Also accepts 16.0.
  [[nodiscard]] std::optional<int64_t> integer(const char* name, int64_t min, int64_t max) const;
  [[nodiscard]] std::optional<double> number(const char* name, const NumberRange& range) const;
  [[nodiscard]] std::optional<std::string> string(const char* name) const;
  [[nodiscard]] std::optional<std::vector<int32_t>> token_ids(const char* name,
                                                              int32_t vocab_size,
                                                              size_t max_count) const;
  [[nodiscard]] std::string full_name(const char* name) const { return path_ + name; }

 private:
  const nlohmann::json* object_;
  std::string path_;
};

// A list of token ids in [0, vocab_size); `name` is for errors.
std::vector<int32_t> read_token_ids(const nlohmann::json& value,
                                    const std::string& name,
                                    int32_t vocab_size);
// A short rendering of a value for an error message, never longer than some 60 bytes.
std::string excerpt(const nlohmann::json& value);

}  // namespace lamina::server
