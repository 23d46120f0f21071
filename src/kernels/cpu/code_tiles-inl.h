// Tiles of 64 keys of quantised caches of KvOrder::kPairs, as ragged_attention_bf16.cc and
// ragged_attention_amx.cc meet them, and which tiles a cache has. Codes become bf16, exactly, in
// the order in which they lie; scales are left to the scores and to the softmax weights, so that no
// element is multiplied. Included there only.
#pragma once

#include <type_traits>

#include "kernels/cpu/bf16_tiles-inl.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu::avx512 {

// As PairTiles. Code: int8_t or Float8E4M3.
template <typename Code>
class CodeTiles {
 public:
  static constexpr int64_t kFetches = kKeyVectors + kTilePairs;
  static int64_t memory_size(const RaggedAttentionArgs& args) {
    return kTileKeys * (args.k_cache.shape[3] + value_dim(args)) + 2 * value_dim(args);
  }
  CodeTiles(const TaskCache& cache, BFloat16* memory)
      : cache_(cache),
        key_dim_(cache.args.k_cache.shape[3]),
        width_(value_dim(cache.args)),
        keys_(memory),
        values_(keys_ + kTileKeys * key_dim_),
        zeros_(values_ + kTileKeys * width_) {
    std::fill_n(zeros_, 2 * width_, BFloat16());
    tile_.key_stride = kPairs;
    for (int64_t group = 0; group < kKeyVectors; ++group) {
      tile_.keys[static_cast<size_t>(group)] = keys_ + group * kLanes * key_dim_;
    }
  }

  // The tile from position `tile` on.
  void locate(int64_t tile) {
    Codes& found = codes_[next_];
    found = Codes();
    const RaggedAttentionArgs& args = cache_.args;
    cache_.for_each_group(tile, [&](const KeyGroup& group) {
      if (group.block == kNoBlock) return;
      found.held |= group.held;
      found.groups[static_cast<size_t>(group.idx)] = {
          .keys = cache_.head_of<Code>(args.k_cache, group.block) + 2 * group.token,
          .values = cache_.head_of<Code>(args.v_cache, group.block) + group.token * width_,
          .key_scales = cache_.scales_of(args.k_scales, group.block) + group.token,
          .value_scales = cache_.scales_of(args.v_scales, group.block) + group.token,
          .num_pairs = group.num_pairs};
    });
  }
  void add_next(Fetcher& fetcher) const {
    for (const Group& group : codes_[next_].groups) {
      if (group.keys == nullptr) continue;
      // 32 codes of 16 keys at a time: where a block is no more than these, one after the other.
      const int64_t stride = 2 * cache_.block_size();
      const bool is_dense = stride == kPairs;
      add(fetcher, group.keys, is_dense ? key_dim_ / 4 : key_dim_ / 2, is_dense ? kLine : stride);
      add(fetcher, group.values, kLanes * width_ / kLine, kLine);
      add(fetcher, group.key_scales, 1, kLine);
      add(fetcher, group.value_scales, 1, kLine);
    }
  }
  [[nodiscard]] uint64_t held() const { return codes_[1 - next_].held; }
  const Tile& take(Fetcher& fetcher) {
    const Codes& taken = codes_[1 - next_];
    tile_.held = taken.held;
    for (size_t i = 0; i < kKeyVectors; ++i) {
      const Group& group = taken.groups[i];
      fetcher.fetch();
      tile_.key_scales[i] = group.keys == nullptr ? kAnyScales : group.key_scales;
      tile_.value_scales[i] = group.keys == nullptr ? kAnyScales : group.value_scales;
      // What is not held may be anything among keys, whose scores are masked.
      if (group.keys != nullptr) widen_keys(group, i);
      widen_values(group, i, fetcher);
    }
    return tile_;
  }
  void advance() { next_ = 1 - next_; }

 private:
  static constexpr int64_t kLine = 64;
  alignas(64) static constexpr float kAnyScales[kLanes] = {};

  // Where 16 keys lie in the cache; nullptr where they are not held.
  struct Group {
    const Code* keys = nullptr;
    const Code* values = nullptr;
    const float* key_scales = nullptr;
    const float* value_scales = nullptr;
    int64_t num_pairs = 0;  // of tokens that are there
  };
  struct Codes {
    std::array<Group, kKeyVectors> groups{};
    uint64_t held = 0;
  };

  // `num_lines` lines, `stride` bytes apart.
  static void add(Fetcher& fetcher, const void* begin, int64_t num_lines, int64_t stride) {
    fetcher.add(static_cast<const BFloat16*>(begin), num_lines, stride / 2);
  }

  void widen_keys(const Group& group, size_t i) {
    BFloat16* to = keys_ + static_cast<int64_t>(i) * kLanes * key_dim_;
    const Code* from = group.keys;
    for (int64_t k = 0; k < key_dim_; k += 2, from += 2 * cache_.block_size(), to += kPairs) {
      _mm512_storeu_si512(to, load_bf16(from));
    }
  }

  // Whatever lies in place of a token that is not there yet is a number once it is widened.
  void widen_values(const Group& group, size_t i, Fetcher& fetcher) {
    const Code* from = group.values;
    for (int64_t pair = 0; pair < kLanes / 2; ++pair) {
      fetcher.fetch();
      const int64_t of_tile = static_cast<int64_t>(i) * kLanes / 2 + pair;
      const BFloat16*& values = tile_.values[static_cast<size_t>(of_tile)];
      values = zeros_;
      if (pair >= group.num_pairs) continue;
      BFloat16* to = values_ + of_tile * 2 * width_;
      values = to;
      for (int64_t k = 0; k < 2 * width_; k += kPairs, from += kPairs) {
        _mm512_storeu_si512(to + k, load_bf16(from));
      }
    }
  }

  TaskCache cache_;
  int64_t key_dim_;
  int64_t width_;
  BFloat16* keys_;    // [kKeyVectors, key_dim / 2, 16, 2]
  BFloat16* values_;  // [kTilePairs, value_dim, 2]
  BFloat16* zeros_;   // in place of values that are not held
  Codes codes_[2];
  size_t next_ = 0;
  Tile tile_;
};

// choose(std::type_identity<Tiles>()) of the tiles that the cache of a call has.
template <typename Choose>
auto choose_tiles(const RaggedAttentionArgs& args, const Choose& choose) {
  if (args.k_cache.dtype == DType::kI8) return choose(std::type_identity<CodeTiles<int8_t>>());
  if (args.k_cache.dtype == DType::kF8E4M3) {
    return choose(std::type_identity<CodeTiles<Float8E4M3>>());
  }
  if (args.order == KvOrder::kPairs) return choose(std::type_identity<PairTiles>());
  return choose(std::type_identity<RowTiles>());
}

}  // namespace lamina::kernels::cpu::avx512
LAMINA_END_AVX512
