#include "model/builder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "model/families.h"

namespace lamina {
namespace {

struct Family {
  std::string_view model_type;
  Graph (*build)(const ModelConfig& config, DType dtype);
};

// Sorted by name.
constexpr std::array kFamilies = {Family{"llama", build_llama},
                                  Family{"mistral", build_llama},
                                  Family{"qwen2", build_llama},
                                  Family{"qwen3", build_qwen3}};

constexpr auto kModelTypes = [] {
  std::array<std::string_view, kFamilies.size()> names;
  std::ranges::transform(kFamilies, names.begin(), &Family::model_type);
  return names;
}();
static_assert(std::ranges::is_sorted(kModelTypes));

}  // namespace

Graph build_graph(const ModelConfig& config, DType dtype) {
  const auto* family = std::ranges::find(kFamilies, config.model_type, &Family::model_type);
  if (family == kFamilies.end()) {
    throw Error(StatusCode::kUnimplemented,
                fmt::format("model type '{}' is not supported; supported are {}",
                            config.model_type,
                            fmt::join(kModelTypes, ", ")));
  }
  return family->build(config, dtype);
}

std::span<const std::string_view> supported_model_types() {
  return kModelTypes;
}

}  // namespace lamina
