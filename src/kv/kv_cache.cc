#include "kv/kv_cache.h"

#include <fmt/format.h>

#include <limits>

#include "base/checked_math.h"
#include "base/error.h"

namespace lamina {
namespace {

size_t cache_bytes(const KvLayout& layout, int32_t num_blocks) {
  if (num_blocks < 0) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("KV cache: {} blocks", num_blocks));
  }
  const auto bytes = checked_mul(layout.block_bytes(), static_cast<uint64_t>(num_blocks));
  // TensorView counts elements in int64_t.
  if (!bytes || *bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    throw Error(
        StatusCode::kResourceExhausted,
        fmt::format(
            "KV cache: {} blocks of {} do not fit in 64 bits", num_blocks, layout.to_string()));
  }
  return *bytes;
}

Buffer allocate_cache(const KvLayout& layout, int32_t num_blocks, MemoryKind memory) {
  const size_t bytes = cache_bytes(layout, num_blocks);
  try {
    return {memory, bytes};
  } catch (const Error& error) {
    throw Error(error.code(),
                fmt::format("KV cache of {} bytes ({} blocks of {}): {}",
                            bytes,
                            num_blocks,
                            layout.to_string(),
                            error.what()));
  }
}

}  // namespace

KvCache::KvCache(const KvLayout& layout, int32_t num_blocks, MemoryKind memory)
    : layout_(layout),
      num_blocks_(num_blocks),
      memory_(allocate_cache(layout, num_blocks, memory)) {}

std::byte* KvCache::layer_memory(int32_t layer_idx) const {
  LAMINA_CHECK_GE(layer_idx, 0);
  LAMINA_CHECK_LT(layer_idx, layout_.num_layers);
  const auto num_layers = static_cast<size_t>(layout_.num_layers);
  const size_t layer_bytes = memory_.size_bytes() / num_layers - scale_bytes();
  return memory_.data() + num_layers * scale_bytes() + static_cast<size_t>(layer_idx) * layer_bytes;
}

size_t KvCache::scale_bytes() const {
  const auto num_tokens = static_cast<size_t>(num_blocks_) *
                          static_cast<size_t>(layout_.num_kv_heads) *
                          static_cast<size_t>(layout_.block_size);
  return num_tokens * static_cast<size_t>(layout_.token_scales()) * sizeof(float);
}

Shape KvCache::shape_of(int32_t row_elements) const {
  return {num_blocks_, layout_.num_kv_heads, layout_.block_size, row_elements};
}

TensorView KvCache::keys(int32_t layer_idx) const {
  return {layer_memory(layer_idx), layout_.dtype, shape_of(layout_.head_dim)};
}

TensorView KvCache::values(int32_t layer_idx) const {
  if (layout_.latent) return {};
  const TensorView keys_of_layer = keys(layer_idx);
  return {
      keys_of_layer.data + keys_of_layer.size_bytes(), layout_.dtype, shape_of(layout_.value_dim)};
}

TensorView KvCache::key_scales(int32_t layer_idx) const {
  LAMINA_CHECK_GE(layer_idx, 0);
  LAMINA_CHECK_LT(layer_idx, layout_.num_layers);
  if (!is_quantized(layout_.dtype)) return {};
  return {memory_.data() + static_cast<size_t>(layer_idx) * scale_bytes(),
          DType::kF32,
          {num_blocks_, layout_.num_kv_heads, layout_.block_size}};
}

TensorView KvCache::value_scales(int32_t layer_idx) const {
  TensorView scales = key_scales(layer_idx);
  if (scales.empty() || layout_.latent) return {};
  scales.data += scales.size_bytes();
  return scales;
}

}  // namespace lamina
