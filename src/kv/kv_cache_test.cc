#include "kv/kv_cache.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace lamina {
namespace {

StatusCode thrown_code(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return StatusCode::kOk;
}

constexpr KvLayout kSmall = {.num_layers = 3,
                             .num_kv_heads = 2,
                             .head_dim = 8,
                             .value_dim = 8,
                             .block_size = 4,
                             .dtype = DType::kF32};

TEST(KvLayout, CountsTheBytesOfABlock) {
  EXPECT_EQ(kSmall.block_bytes(), 2U * 3 * 2 * 8 * 4 * 4);
  KvLayout half = kSmall;
  half.dtype = DType::kBF16;
  EXPECT_EQ(half.block_bytes(), kSmall.block_bytes() / 2);
}

TEST(KvLayout, CountsScalesOfCodes) {
  KvLayout codes = kSmall;
  codes.dtype = DType::kI8;
  EXPECT_EQ(codes.block_bytes(), 3U * 2 * 4 * (8 + 8 + 2 * 4));
  codes.latent = true;  // a key, and its scale
  EXPECT_EQ(codes.block_bytes(), 3U * 2 * 4 * (8 + 4));
}

TEST(KvLayout, RefusesWhatIsNoSize) {
  for (int32_t KvLayout::* const field : {&KvLayout::num_layers,
                                          &KvLayout::num_kv_heads,
                                          &KvLayout::head_dim,
                                          &KvLayout::block_size}) {
    for (const int32_t value : {0, -1}) {
      KvLayout layout = kSmall;
      layout.*field = value;
      EXPECT_EQ(thrown_code([&] { (void)layout.block_bytes(); }), StatusCode::kInvalidArgument);
    }
  }
  constexpr int32_t kHuge = std::numeric_limits<int32_t>::max();
  const KvLayout huge = {kHuge, kHuge, kHuge, kHuge, false, kHuge, DType::kBF16};
  EXPECT_EQ(thrown_code([&] { (void)huge.block_bytes(); }), StatusCode::kInvalidArgument);
}

TEST(KvCache, ViewsTileTheMemory) {
  const KvCache cache(kSmall, 5, MemoryKind::kHost);
  const Shape shape = {5, 2, 4, 8};
  const std::byte* next = cache.keys(0).data;
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (const TensorView& view : {cache.keys(layer), cache.values(layer)}) {
      EXPECT_EQ(view.shape, shape);
      EXPECT_EQ(view.dtype, DType::kF32);
      EXPECT_EQ(view.data, next);
      next = view.data + view.size_bytes();
    }
  }
  EXPECT_EQ(static_cast<uint64_t>(next - cache.keys(0).data), 5 * kSmall.block_bytes());
}

// Scales of all layers, then codes of all layers; those are of an odd size, these are aligned.
TEST(KvCache, ScalesLieBesideTheCodes) {
  for (const bool latent : {false, true}) {
    KvLayout layout = kSmall;
    layout.dtype = DType::kF8E4M3;
    layout.head_dim = 9;
    layout.block_size = 1;
    layout.latent = latent;
    const KvCache cache(layout, 5, MemoryKind::kHost);
    const std::byte* const first = cache.key_scales(0).data;
    const std::byte* next = first;
    const auto expect_next = [&](const TensorView& view, DType dtype) {
      EXPECT_EQ(view.data, next);
      EXPECT_EQ(view.dtype, dtype);
      next += view.size_bytes();
    };
    for (int32_t layer = 0; layer < 3; ++layer) {
      EXPECT_EQ(cache.key_scales(layer).shape, Shape({5, 2, 1}));
      expect_next(cache.key_scales(layer), DType::kF32);
      EXPECT_EQ(cache.value_scales(layer).empty(), latent);
      if (!latent) expect_next(cache.value_scales(layer), DType::kF32);
    }
    for (int32_t layer = 0; layer < 3; ++layer) {
      expect_next(cache.keys(layer), DType::kF8E4M3);
      if (!latent) expect_next(cache.values(layer), DType::kF8E4M3);
    }
    EXPECT_EQ(static_cast<uint64_t>(next - first), 5 * layout.block_bytes());
  }
  EXPECT_TRUE(KvCache(kSmall, 5, MemoryKind::kHost).key_scales(0).empty());
}

TEST(KvCache, SaysSoWhenMemoryCannotBeHad) {
  KvLayout large = kSmall;
  large.head_dim = 1 << 20;
  large.num_kv_heads = 1 << 12;
  EXPECT_EQ(thrown_code([&] { KvCache(large, 1 << 30, MemoryKind::kHost); }),
            StatusCode::kResourceExhausted);
  large.num_layers = 1 << 20;
  EXPECT_EQ(thrown_code([&] { KvCache(large, 1 << 30, MemoryKind::kHost); }),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(thrown_code([&] { KvCache(kSmall, -1, MemoryKind::kHost); }),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lamina
