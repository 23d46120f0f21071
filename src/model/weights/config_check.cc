#include "model/weights/config_check.h"

#include <fmt/format.h>

#include "base/error.h"

namespace lamina {
namespace {

void require(bool condition, std::string_view source, const std::string& message) {
  if (!condition) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("{}: {}", source, message));
  }
}

}  // namespace

void check_config(const ModelConfig& config, std::string_view source) {
  require(config.num_heads % config.num_kv_heads == 0,
          source,
          fmt::format("{} attention heads cannot share {} key-value heads",
                      config.num_heads,
                      config.num_kv_heads));
  require(config.head_dim > 0 && config.head_dim % 2 == 0,
          source,
          fmt::format("head_dim is {}, expected an even number", config.head_dim));
  const double rotary_dim = config.head_dim * config.rope.partial_rotary_factor;
  require(rotary_dim >= 2.0 && rotary_dim <= config.head_dim &&
              static_cast<int64_t>(rotary_dim) % 2 == 0,
          source,
          fmt::format("the rotary part of a head is {} of {} elements, expected an even number",
                      rotary_dim,
                      config.head_dim));
  require(config.windows.size() == static_cast<size_t>(config.num_layers),
          source,
          fmt::format("{} windows for {} layers", config.windows.size(), config.num_layers));
}

}  // namespace lamina
