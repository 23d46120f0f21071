#include "kv/kv_cache.h"

#include <fmt/format.h>

#include <limits>
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

std::string describe(const KvLayout& layout) {
  return fmt::format("{} layers x {} KV heads x {} tokens x {} elements of {}",
                     layout.num_layers,
                     layout.num_kv_heads,
                     layout.block_size,
                     layout.head_dim,
                     dtype_name(layout.dtype));
}

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
            "KV cache: {} blocks of {} do not fit in 64 bits", num_blocks, describe(layout)));
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
                            describe(layout),
                            error.what()));
  }
}

}  // namespace

uint64_t KvLayout::block_bytes() const {
  const auto bytes = positive_product({2,
                                       num_layers,
                                       num_kv_heads,
                                       head_dim,
                                       block_size,
                                       static_cast<int64_t>(dtype_bytes(dtype))});
  if (!bytes) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("KV layout: {} is not a size", describe(*this)));
  }
  return *bytes;
}

KvCache::KvCache(const KvLayout& layout, int32_t num_blocks, MemoryKind memory)
    : layout_(layout),
      num_blocks_(num_blocks),
      memory_(allocate_cache(layout, num_blocks, memory)) {}

TensorView KvCache::view(int32_t half_idx) const {
  LAMINA_CHECK_GE(half_idx, 0);
  LAMINA_CHECK_LT(half_idx, 2 * layout_.num_layers);
  const size_t half_bytes = memory_.size_bytes() / (2 * static_cast<size_t>(layout_.num_layers));
  return {memory_.data() + static_cast<size_t>(half_idx) * half_bytes,
          layout_.dtype,
          {num_blocks_, layout_.num_kv_heads, layout_.block_size, layout_.head_dim}};
}

}  // namespace lamina
