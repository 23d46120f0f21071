#include "model/family.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "model/family_files.h"  // made by the build from the files of families/

namespace lamina {

std::span<const Family> all_families() {
  static const std::vector<Family> kFamilies = [] {
    std::vector<Family> families;
    for (const auto& of_file : kFamilyFiles) {
      for (const Family& family : of_file()) {
        LAMINA_CHECK(family.build != nullptr, std::string(family.model_type));
        families.push_back(family);
      }
    }
    std::ranges::sort(families, {}, &Family::model_type);
    const auto twice = std::ranges::adjacent_find(families, {}, &Family::model_type);
    LAMINA_CHECK(twice == families.end(), "two families of one model type");
    return families;
  }();
  return kFamilies;
}

const Family* find_family(std::string_view model_type) {
  const auto families = all_families();
  const auto found = std::ranges::lower_bound(families, model_type, {}, &Family::model_type);
  return found == families.end() || found->model_type != model_type ? nullptr : &*found;
}

}  // namespace lamina
