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
  int32_t head_dim = 0;
  int32_t block_size = 16;  // tokens
  DType dtype = DType::kBF16;

  // Bytes of one block over all layers, K and V. Throws Error kInvalidArgument on overflow or a
  // non-positive field.
  [[nodiscard]] uint64_t block_bytes() const;
  // "30 layers x 3 KV heads x 16 tokens x 64 elements of bfloat16".
  [[nodiscard]] std::string to_string() const;
};

}  // namespace lamina
