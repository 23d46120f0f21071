// DeviceCatalogue: devices by name, with where each figure and price comes from: the one that is
// built in (devices.yaml), and files of the same form that replace or add to it. Immutable once
// read.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "plan/device_spec.h"

namespace lamina::planner {

struct PriceTag {
  double dollars_per_h = 0;
  std::string date;
  std::string source;
};

struct CatalogueEntry {
  DeviceSpec spec;  // its price is that of the tag, or 0
  std::string source;
  std::optional<PriceTag> price;
};

class DeviceCatalogue {
 public:
  // devices.yaml as it was when this was built.
  static DeviceCatalogue built_in();
  // Throws Error kInvalidArgument, naming file, device and key.
  static DeviceCatalogue parse(const std::string& yaml, const std::string& source);

  // Entries of `other` replace those of the same name.
  void add(const DeviceCatalogue& other);
  void add_device(CatalogueEntry entry) { entries_[entry.spec.name] = std::move(entry); }
  void add_file(const std::filesystem::path& path);
  // Throws Error kNotFound.
  void set_price(const std::string& name, double dollars_per_h);

  // Throws Error kNotFound, naming those there are.
  [[nodiscard]] const CatalogueEntry& entry(const std::string& name) const;
  // The same, but kFailedPrecondition for one without a price, saying how to give one.
  [[nodiscard]] const DeviceSpec& priced(const std::string& name) const;
  [[nodiscard]] const std::map<std::string, CatalogueEntry>& entries() const { return entries_; }

 private:
  std::map<std::string, CatalogueEntry> entries_;
};

}  // namespace lamina::planner
