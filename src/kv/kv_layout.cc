#include "kv/kv_layout.h"

#include <fmt/format.h>

#include <initializer_list>
#include <optional>

#include "base/checked_math.h"
#include "base/error.h"

namespace lamina {
namespace {

// The product, or nothing if a factor is not positive or the result leaves 64 bits.
std::optional<uint64_t> positive_product(std::initializer_list<int64_t> factors) {
  std::optional<uint64_t> product = 1;
  for (const int64_t factor : factors) {
    if (factor <= 0) return std::nullopt;
    product = checked_mul(*product, static_cast<uint64_t>(factor));
    if (!product) return std::nullopt;
  }
  return product;
}

}  // namespace

std::string KvLayout::to_string() const {
  return fmt::format("{} layers x {} KV heads x {} tokens x ({} + {}) elements of {}",
                     num_layers,
                     num_kv_heads,
                     block_size,
                     head_dim,
                     latent ? 0 : value_dim,
                     dtype_name(dtype));
}

uint64_t KvLayout::block_bytes() const {
  const int64_t token_bytes = token_elements() * static_cast<int64_t>(dtype_bytes(dtype)) +
                              token_scales() * static_cast<int64_t>(sizeof(float));
  const auto bytes = positive_product({num_layers, num_kv_heads, token_bytes, block_size});
  const bool fits = head_dim > 0 && value_dim > 0 && (!latent || value_dim <= head_dim);
  if (!bytes || !fits) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("KV layout: {} is not a size", to_string()));
  }
  return *bytes;
}

}  // namespace lamina
