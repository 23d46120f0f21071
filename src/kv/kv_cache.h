// KvCache: the bytes of the KV blocks that one attention worker holds: for each layer K and V of
// its heads, in the canonical layout [num_blocks, num_kv_heads, block_size, head_dim]. Owns the
// memory; knows no sequence. Confined to the worker's thread.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "device/buffer.h"
#include "tensor/tensor_view.h"

namespace lamina {

// Shape of a cache; also what a memory budget is computed from.
struct KvLayout {
  int32_t num_layers = 0;
  int32_t num_kv_heads = 0;  // of this worker
  int32_t head_dim = 0;
  int32_t block_size = 16;  // tokens
  DType dtype = DType::kBF16;

  // Bytes of one block over all layers, K and V. Throws Error kInvalidArgument on overflow or a
  // non-positive field.
  [[nodiscard]] uint64_t block_bytes() const;
};

class KvCache {
 public:
  // Throws Error kResourceExhausted, naming the sizes, if the memory cannot be had.
  KvCache(const KvLayout& layout, int32_t num_blocks, MemoryKind memory);

  [[nodiscard]] const KvLayout& layout() const { return layout_; }
  [[nodiscard]] int32_t num_blocks() const { return num_blocks_; }
  // [num_blocks, num_kv_heads, block_size, head_dim]
  [[nodiscard]] TensorView keys(int32_t layer_idx) const { return view(2 * layer_idx); }
  [[nodiscard]] TensorView values(int32_t layer_idx) const { return view(2 * layer_idx + 1); }

 private:
  [[nodiscard]] TensorView view(int32_t half_idx) const;

  KvLayout layout_;
  int32_t num_blocks_;
  Buffer memory_;
};

}  // namespace lamina
