// KvLayout: the shape of a KV cache and its cost in bytes. Accounting: planners and engines compute
// budgets from it, KvCache allocates by it. Plain value.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/dtype.h"

namespace lamina {

struct KvLayout {
  int32_t num_layers = 0;
  int32_t num_kv_heads = 0;  // of this worker
  int32_t head_dim = 0;      // of a key
  int32_t value_dim = 0;     // of a value
  bool latent = false;       // values lie in the keys: nothing is stored for them
  int32_t block_size = 16;   // tokens
  DType dtype = DType::kBF16;

  // Elements of one token's key and value in one head, as stored.
  [[nodiscard]] int64_t token_elements() const {
    return int64_t{head_dim} + (latent ? 0 : value_dim);
  }
  // Scales of one token in one head, as f32: of its key and its value. None unless quantised.
  [[nodiscard]] int64_t token_scales() const {
    if (!is_quantized(dtype)) return 0;
    return latent ? 1 : 2;
  }
  // Bytes of one block over all layers, K and V and their scales. Throws Error kInvalidArgument on
  // overflow or a non-positive field.
  [[nodiscard]] uint64_t block_bytes() const;
  // "30 layers x 3 KV heads x 16 tokens x (64 + 64) elements of bfloat16".
  [[nodiscard]] std::string to_string() const;
};

}  // namespace lamina
