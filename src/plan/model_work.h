// ModelWork: what decoding one token costs, as far as a planner has to know a model: bytes of
// weights, FLOP, KV bytes, bytes that cross between the pools. Plain values and arithmetic; where
// they come from (a config.json, a paper's table) is not its business.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kv/kv_layout.h"

namespace lamina {

// Products of one shape, x [T, inputs] by a weight [outputs, inputs].
struct ProductShape {
  int64_t outputs = 0;
  int64_t inputs = 0;
  int32_t count = 0;

  friend bool operator==(const ProductShape&, const ProductShape&) = default;
};

struct ModelWork {
  std::string name;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;   // of a key, as it is cached
  int32_t value_dim = 0;  // of a value
  bool latent = false;    // values lie in the keys (KvLayout)
  // Sliding windows of the layers, empty: none has one. The cache keeps what a window has left.
  std::vector<std::optional<int32_t>> windows;

  double weight_bytes = 0;    // of everything that is stored
  double dense_bytes = 0;     // of it, what every step reads
  double expert_bytes = 0;    // and what a step reads where its tokens are routed to
  double expert_share = 0;    // of expert_bytes, what one token reads
  double flop_per_token = 0;  // of products
  // All of them, for costs that were measured by shape; experts are not among them.
  std::vector<ProductShape> products;

  // On the wire for each token and layer, if one worker has all heads.
  double q_bytes = 0;
  double kv_bytes = 0;
  double out_bytes = 0;
  double carried_bytes = 0;  // kept between two slices, for each token
  double reduced_bytes = 0;  // summed over tensor-parallel ranks, twice a layer
  // Share of a slice that runs after q has left: the products that make k and v.
  double kv_projection_share = 0;

  // Weights that a step of so many tokens reads: experts that are drawn independently.
  [[nodiscard]] double read_bytes(double num_tokens) const {
    return dense_bytes + expert_bytes * (1.0 - std::pow(1.0 - expert_share, num_tokens));
  }
  // Cached positions that a sequence's new token attends to, the mean of all layers.
  [[nodiscard]] double attended_positions(double context) const {
    if (windows.empty()) return context;
    double sum = 0;
    for (const auto& window : windows) {
      sum += window ? std::min<double>(*window, context) : context;
    }
    return sum / static_cast<double>(windows.size());
  }
  [[nodiscard]] KvLayout kv_layout(DType dtype, int32_t block_size) const {
    return {.num_layers = num_layers,
            .num_kv_heads = num_kv_heads,
            .head_dim = head_dim,
            .value_dim = value_dim,
            .latent = latent,
            .block_size = block_size,
            .dtype = dtype};
  }
};

}  // namespace lamina
