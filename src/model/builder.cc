#include "model/builder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "model/family.h"

namespace lamina {

Graph build_graph(const ModelConfig& config, DType dtype) {
  const Family* family = find_family(config.model_type);
  if (family == nullptr) {
    throw Error(StatusCode::kUnimplemented,
                fmt::format("model type '{}' is not supported; supported are {}",
                            config.model_type,
                            fmt::join(supported_model_types(), ", ")));
  }
  return family->build(config, dtype);
}

std::vector<std::string_view> supported_model_types() {
  std::vector<std::string_view> names;
  for (const Family& family : all_families()) names.push_back(family.model_type);
  return names;
}

}  // namespace lamina
