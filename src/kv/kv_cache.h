// KvCache: the bytes of the KV blocks that one attention worker holds: for each layer K and V of
// its heads, in the canonical layout [num_blocks, num_kv_heads, block_size, elements], and the
// scales of quantised ones. Owns the memory; knows no sequence. Confined to the worker's thread.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "device/buffer.h"
#include "kv/kv_layout.h"
#include "tensor/tensor_view.h"

namespace lamina {

class KvCache {
 public:
  // Throws Error kResourceExhausted, naming the sizes, if the memory cannot be had.
  KvCache(const KvLayout& layout, int32_t num_blocks, MemoryKind memory);

  [[nodiscard]] const KvLayout& layout() const { return layout_; }
  [[nodiscard]] int32_t num_blocks() const { return num_blocks_; }
  // [num_blocks, num_kv_heads, block_size, head_dim]
  [[nodiscard]] TensorView keys(int32_t layer_idx) const;
  // [num_blocks, num_kv_heads, block_size, value_dim]; an empty view of a latent cache
  [[nodiscard]] TensorView values(int32_t layer_idx) const;
  // [num_blocks, num_kv_heads, block_size] f32; empty views unless quantised,
  // value_scales() also of a latent cache
  [[nodiscard]] TensorView key_scales(int32_t layer_idx) const;
  [[nodiscard]] TensorView value_scales(int32_t layer_idx) const;

 private:
  // Codes or numbers of a layer; the scales of all layers lie before those of the first.
  [[nodiscard]] std::byte* layer_memory(int32_t layer_idx) const;
  [[nodiscard]] size_t scale_bytes() const;  // of a layer
  [[nodiscard]] Shape shape_of(int32_t row_elements) const;

  KvLayout layout_;
  int32_t num_blocks_;
  Buffer memory_;
};

}  // namespace lamina
