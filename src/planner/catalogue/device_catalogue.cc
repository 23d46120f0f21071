#include "planner/catalogue/device_catalogue.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "planner/built_in_devices.h"
#include "planner/yaml_fields.h"

namespace lamina::planner {
namespace {

constexpr size_t kMaxDevices = 1000;

PriceTag read_price(const YAML::Node& node, const std::string& where) {
  YamlFields fields(node, where);
  const PriceTag price = {.dollars_per_h = fields.number("dollars_per_h", 1e-6, 1e6),
                          .date = fields.text("date"),
                          .source = fields.text("source")};
  fields.refuse_others();
  return price;
}

CatalogueEntry read_entry(const YAML::Node& node,
                          const std::string& name,
                          const std::string& where) {
  YamlFields fields(node, where);
  CatalogueEntry entry;
  entry.spec = {.name = name,
                .flop_per_s = 1e12 * fields.number("tflops", 1e-6, 1e9),
                .memory_bytes = 1e9 * fields.number("memory_gb", 1e-3, 1e6),
                .memory_bytes_per_s = 1e9 * fields.number("memory_gb_per_s", 1e-3, 1e9),
                .link_bytes_per_s = 1e9 * fields.number("link_gb_per_s", 1e-3, 1e9),
                .network_bytes_per_s = 1e9 / 8 * fields.number("network_gbit_per_s", 1e-3, 1e9),
                .power_w = fields.number("power_w", 0, 1e6)};
  entry.source = fields.text("source");
  if (const auto price = fields.find("price")) {
    entry.price = read_price(*price, where + ", price");
    entry.spec.dollars_per_h = entry.price->dollars_per_h;
  }
  fields.refuse_others();
  return entry;
}

}  // namespace

DeviceCatalogue DeviceCatalogue::built_in() {
  return parse(kBuiltInDevices, "devices.yaml");
}

DeviceCatalogue DeviceCatalogue::parse(const std::string& yaml, const std::string& source) {
  const YAML::Node root = parse_yaml(yaml, source);
  const YamlFields checked(root, source);
  if (root.size() > kMaxDevices) checked.refuse(fmt::format("more than {} devices", kMaxDevices));
  DeviceCatalogue catalogue;
  for (const auto& device : root) {
    if (!device.first.IsScalar()) checked.refuse("names of devices are texts");
    const std::string name = device.first.Scalar();
    catalogue.entries_[name] =
        read_entry(device.second, name, fmt::format("{}: device '{}'", source, name));
  }
  return catalogue;
}

void DeviceCatalogue::add(const DeviceCatalogue& other) {
  for (const auto& [name, entry] : other.entries_) entries_[name] = entry;
}

void DeviceCatalogue::add_file(const std::filesystem::path& path) {
  constexpr size_t kMaxBytes = 4 << 20;
  add(parse(read_text_file(path, kMaxBytes), path.string()));
}

const CatalogueEntry& DeviceCatalogue::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found != entries_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, entry] : entries_) names.push_back(known);
  throw Error(StatusCode::kNotFound,
              fmt::format("no device '{}' in the catalogue: {}", name, fmt::join(names, ", ")));
}

void DeviceCatalogue::set_price(const std::string& name, double dollars_per_h) {
  CatalogueEntry priced = entry(name);
  priced.price = {.dollars_per_h = dollars_per_h, .date = "today", .source = "--price"};
  priced.spec.dollars_per_h = dollars_per_h;
  entries_[name] = std::move(priced);
}

const DeviceSpec& DeviceCatalogue::priced(const std::string& name) const {
  const CatalogueEntry& found = entry(name);
  if (found.price) return found.spec;
  throw Error(StatusCode::kFailedPrecondition,
              fmt::format("device '{0}' has no price: say --price {0}=DOLLARS_PER_HOUR", name));
}

}  // namespace lamina::planner
