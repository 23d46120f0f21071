// Reading YAML that anybody may have edited: a mapping with fields of a type and a range, refused
// with file, key and value. Internal to the planner.
#pragma once

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <optional>
#include <set>
#include <string>

namespace lamina::planner {

// The root of a text of a bounded size. Throws Error kInvalidArgument naming `source`.
YAML::Node parse_yaml(const std::string& text, const std::string& source);
// Of a file. Throws Error kNotFound, kResourceExhausted above 4 MiB.
YAML::Node read_yaml(const std::filesystem::path& path);

class YamlFields {
 public:
  // Throws Error kInvalidArgument unless `node` is a mapping. `where` names it in messages.
  YamlFields(const YAML::Node& node, std::string where);

  // Throw Error kInvalidArgument for what is absent, of another type or out of [low, high].
  [[nodiscard]] double number(const std::string& key, double low, double high);
  [[nodiscard]] int32_t integer(const std::string& key, int32_t low, int32_t high);
  [[nodiscard]] std::string text(const std::string& key);
  // Empty where it is absent.
  [[nodiscard]] std::optional<YAML::Node> find(const std::string& key);
  // Throws Error kInvalidArgument for a key that nobody asked for: it would be a typing error.
  void refuse_others() const;
  // Throws Error kInvalidArgument: "where: message".
  [[noreturn]] void refuse(const std::string& message) const;

  [[nodiscard]] const std::string& where() const { return where_; }

 private:
  [[nodiscard]] YAML::Node required(const std::string& key);

  YAML::Node node_;
  std::string where_;
  std::set<std::string> asked_;
};

}  // namespace lamina::planner
