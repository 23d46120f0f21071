#include "planner/yaml_fields.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "base/file.h"

namespace lamina::planner {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;

}  // namespace

YAML::Node parse_yaml(const std::string& text, const std::string& source) {
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& error) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("{}: {}", source, error.what()));
  }
}

YAML::Node read_yaml(const std::filesystem::path& path) {
  return parse_yaml(read_text_file(path, kMaxFileBytes), path.string());
}

YamlFields::YamlFields(const YAML::Node& node, std::string where)
    : node_(node), where_(std::move(where)) {
  if (!node_.IsMap()) refuse("must be a mapping of names to values");
}

std::optional<YAML::Node> YamlFields::find(const std::string& key) {
  asked_.insert(key);
  const YAML::Node& node = node_;  // a lookup in one that is not const would add the key
  const YAML::Node value = node[key];
  if (!value.IsDefined() || value.IsNull()) return std::nullopt;
  return value;
}

YAML::Node YamlFields::required(const std::string& key) {
  const std::optional<YAML::Node> value = find(key);
  if (!value) refuse(fmt::format("'{}' is missing", key));
  return *value;
}

double YamlFields::number(const std::string& key, double low, double high) {
  const YAML::Node value = required(key);
  double number = 0;
  const bool is_number = value.IsScalar() && YAML::convert<double>::decode(value, number);
  if (!is_number || !std::isfinite(number) || number < low || number > high) {
    refuse(fmt::format("'{}' must be a number from {:g} to {:g}, not '{}'",
                       key,
                       low,
                       high,
                       value.IsScalar() ? value.Scalar() : "a list or mapping"));
  }
  return number;
}

int32_t YamlFields::integer(const std::string& key, int32_t low, int32_t high) {
  const double value = number(key, low, high);
  if (value != std::floor(value)) refuse(fmt::format("'{}' must be a whole number", key));
  return static_cast<int32_t>(value);
}

std::string YamlFields::text(const std::string& key) {
  const YAML::Node value = required(key);
  if (!value.IsScalar()) refuse(fmt::format("'{}' must be a text", key));
  return value.Scalar();
}

void YamlFields::refuse_others() const {
  for (const auto& entry : node_) {
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "(no text)";
    if (!asked_.contains(key)) refuse(fmt::format("unknown key '{}'", key));
  }
}

void YamlFields::refuse(const std::string& message) const {
  throw Error(StatusCode::kInvalidArgument, fmt::format("{}: {}", where_, message));
}

}  // namespace lamina::planner
