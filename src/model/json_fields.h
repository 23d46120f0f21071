// Reading JSON of model folders: parsing with limits, and fields with a type and a range, refused
// with file, key and value. Internal to huggingface/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace lamina {

struct IntegerRange {
  int64_t low;
  int64_t high;
};
struct NumberRange {
  double low;
  double high;
};

// An object of at most 64 levels and 2^20 keys and values. Throws Error kInvalidArgument naming
// `source` and, for a syntax error, the byte. The caller bounds the size of `text`.
nlohmann::json parse_json_object(std::string_view text, std::string_view source);

// One JSON object with the name of where it stands. A field that is null counts as absent. The
// object outlives it.
class JsonFields {
 public:
  // Throws Error kInvalidArgument unless `value` is an object.
  JsonFields(const nlohmann::json& value, std::string where);

  // The value under `key`; null pointer if absent or null.
  [[nodiscard]] const nlohmann::json* find(std::string_view key) const;
  [[nodiscard]] bool has(std::string_view key) const { return find(key) != nullptr; }
  // Also true for null.
  [[nodiscard]] bool mentions(std::string_view key) const;

  // All throw Error kInvalidArgument for a value of another type or out of range.
  [[nodiscard]] std::optional<int32_t> integer(std::string_view key, IntegerRange range) const;
  [[nodiscard]] int32_t required_integer(std::string_view key, IntegerRange range) const;
  [[nodiscard]] std::optional<double> number(std::string_view key, NumberRange range) const;
  [[nodiscard]] std::optional<bool> boolean(std::string_view key) const;
  [[nodiscard]] std::optional<std::string> text(std::string_view key) const;

  [[nodiscard]] const std::string& where() const { return where_; }
  // Throws Error kInvalidArgument: "where: message".
  [[noreturn]] void refuse(const std::string& message) const;
  [[noreturn]] void refuse_value(std::string_view key, std::string_view expected) const;

 private:
  const nlohmann::json* object_;
  std::string where_;
};

}  // namespace lamina
