// Tiles of 64 keys as ragged_attention_bf16.cc and ragged_attention_amx.cc meet them, from caches
// of either order: where their pairs lie, and what of the next tile is fetched meanwhile. Included
// there only.
#pragma once

#include <array>

#include "base/checked_math.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/avx512-inl.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu::avx512 {

constexpr int64_t kKeyVectors = kTileKeys / kLanes;
constexpr int64_t kTilePairs = kTileKeys / 2;  // pairs of keys

struct Tile {
  // Of each 16 keys: pair i of the head dimension at keys + i * key_stride.
  std::array<const BFloat16*, kKeyVectors> keys{};
  int64_t key_stride = 0;
  std::array<const BFloat16*, kTilePairs> values{};  // of each pair of keys: [value_dim, 2]
  uint64_t held = 0;  // keys within the range and in blocks that are held here
  // Of quantised caches, of each 16 keys: what their scores, and their softmax weights before they
  // meet the values, are multiplied with. Of keys that are not held: anything.
  std::array<const float*, kKeyVectors> key_scales{};
  std::array<const float*, kKeyVectors> value_scales{};
};

// Bits [begin, end), as far as they are bits of a tile.
inline uint64_t bit_range(int64_t begin, int64_t end) {
  begin = std::clamp<int64_t>(begin, 0, kTileKeys);
  end = std::clamp<int64_t>(end, 0, kTileKeys);
  if (begin >= end) return 0;
  return (~uint64_t{0} >> (kTileKeys - (end - begin))) << begin;
}

// Fetches cache lines, a few at a time all through the work on the tile before: a core has few
// lines under way at once, and more would wait for each other.
class Fetcher {
 public:
  // `num_lines` lines, `stride` elements apart.
  void add(const BFloat16* begin, int64_t num_lines, int64_t stride) {
    chunks_[static_cast<size_t>(num_chunks_++)] = {begin, num_lines, stride};
    num_lines_ += num_lines;
  }
  // Before the first fetch(): how often it will be called.
  void plan(int64_t num_calls) { step_ = ceil_div(num_lines_, num_calls); }

  // May fetch some lines past the end of a chunk.
  HWY_INLINE void fetch() {
    if (lines_left_ <= 0) begin_next();
    for (int64_t i = 0; i < step_; ++i) {
      _mm_prefetch(at_, _MM_HINT_T0);
      at_ += stride_;
    }
    lines_left_ -= step_;
  }

 private:
  struct Chunk {
    const BFloat16* begin;
    int64_t num_lines;
    int64_t stride;
  };

  // Inline: a call would save all vectors of the loop around it.
  HWY_INLINE void begin_next() {
    if (chunk_ == num_chunks_) {
      step_ = 0;
      lines_left_ = 1;
      return;
    }
    const Chunk& chunk = chunks_[static_cast<size_t>(chunk_++)];
    at_ = chunk.begin;
    stride_ = chunk.stride;
    lines_left_ = chunk.num_lines;
  }

  std::array<Chunk, 2 * kTileKeys> chunks_;
  int64_t num_chunks_ = 0;
  int64_t num_lines_ = 0;
  int64_t step_ = 0;
  int64_t chunk_ = 0;  // the next one
  const BFloat16* at_ = nullptr;
  int64_t stride_ = 0;
  int64_t lines_left_ = 0;
};

// Sixteen keys of a tile, side by side in one block.
struct KeyGroup {
  int64_t idx = 0;  // of the tile's kKeyVectors
  int32_t block = kNoBlock;
  int64_t token = 0;      // the first one's, of its block
  uint64_t held = 0;      // bits of the tile: those within the range
  int64_t num_pairs = 0;  // up to the end of the range
};

// The cache of a task: positions that lie in `range` and in blocks that are held here.
struct TaskCache {
  const RaggedAttentionArgs& args;
  const AttentionTask& task;
  KeyRange range;

  [[nodiscard]] int64_t block_size() const { return args.k_cache.shape[2]; }
  [[nodiscard]] int32_t block(int64_t idx) const {
    return args.batch.block_tables[static_cast<size_t>(task.b * args.batch.max_blocks + idx)];
  }
  [[nodiscard]] int32_t block_of(int64_t position) const { return block(position / block_size()); }
  // The first element of the task's head in a block.
  template <typename Element = BFloat16>
  [[nodiscard]] const Element* head_of(const TensorView& cache, int32_t block) const {
    return cache.row<Element>(block) + task.kv_head * cache.shape[2] * cache.shape[3];
  }
  [[nodiscard]] const float* scales_of(const TensorView& scales, int32_t block) const {
    return scales.row<float>(block) + task.kv_head * scales.shape[2];
  }
  // visit(KeyGroup) for each group of the tile from position `tile` on, in caches of
  // KvOrder::kPairs; without a block where nothing of it is within the range and held here.
  template <typename Visit>
  HWY_INLINE void for_each_group(int64_t tile, const Visit& visit) const {
    int64_t block_idx = tile / block_size();
    KeyGroup group{.token = tile - block_idx * block_size()};
    for (; group.idx < kKeyVectors; ++group.idx) {
      const int64_t first = tile + group.idx * kLanes;
      const int64_t begin = std::max(first, range.begin);
      const int64_t end = std::min(first + kLanes, range.end);
      group.block = begin < end ? block(block_idx) : kNoBlock;
      group.held = bit_range(begin - tile, end - tile);
      group.num_pairs = ceil_div(end - first, int64_t{2});
      visit(group);
      group.token += kLanes;
      if (group.token < block_size()) continue;
      group.token = 0;
      ++block_idx;
    }
  }
};

// Tiles of caches of KvOrder::kPairs, read as they lie. locate() finds the next tile and add_next()
// names its lines; advance() makes it the present one, which take() gives, if it is held at all:
// valid until the next take(), which calls fetch() kFetches times.
class PairTiles {
 public:
  static constexpr int64_t kFetches = 0;
  // Elements of memory that it needs, which begins with a cache line.
  static int64_t memory_size(const RaggedAttentionArgs& args) { return 4 * value_dim(args); }
  PairTiles(const TaskCache& cache, BFloat16* memory)
      : cache_(cache), width_(value_dim(cache.args)), zeros_(memory), edge_(memory + 2 * width_) {
    std::fill_n(zeros_, 2 * width_, BFloat16());
  }

  // The tile from position `tile` on.
  void locate(int64_t tile) {
    Tile& found = tiles_[next_];
    found.key_stride = 2 * cache_.block_size();
    found.held = 0;
    cache_.for_each_group(tile, [&](const KeyGroup& group) {
      if (group.block == kNoBlock) return set_group(found, group.idx, nullptr, zeros_, 0);
      found.held |= group.held;
      set_group(found,
                group.idx,
                cache_.head_of(cache_.args.k_cache, group.block) + 2 * group.token,
                cache_.head_of(cache_.args.v_cache, group.block) + group.token * width_,
                group.num_pairs);
    });
  }
  void add_next(Fetcher& fetcher) const {
    const Tile& found = tiles_[next_];
    const int64_t num_key_pairs = cache_.args.k_cache.shape[3] / 2;
    for (int64_t group = 0; group < kKeyVectors;) {
      const int64_t count = run_length(found, group);
      const BFloat16* keys = found.keys[static_cast<size_t>(group)];
      if (keys != nullptr && count * kLanes == cache_.block_size()) {  // in the order of memory
        fetcher.add(keys, count * num_key_pairs, kPairs);
      } else if (keys != nullptr) {
        for (int64_t i = 0; i < count; ++i) {
          fetcher.add(keys + i * kPairs, num_key_pairs, found.key_stride);
        }
      }
      if (keys != nullptr) {
        fetcher.add(found.values[static_cast<size_t>(group * kLanes / 2)],
                    count * kLanes * width_ / kPairs,
                    kPairs);
      }
      group += count;
    }
  }
  [[nodiscard]] uint64_t held() const { return tiles_[1 - next_].held; }
  const Tile& take(Fetcher& /*fetcher*/) {
    Tile& taken = tiles_[1 - next_];
    // A key that is not seen may be anything, its scores are masked; a value must be a number.
    const BFloat16* some_keys = nullptr;
    for (const BFloat16* keys : taken.keys) some_keys = keys != nullptr ? keys : some_keys;
    for (const BFloat16*& keys : taken.keys) keys = keys != nullptr ? keys : some_keys;
    const int last = 63 - __builtin_clzll(taken.held);
    if (last % 2 == 0) mask_second(taken.values[static_cast<size_t>(last / 2)]);
    return taken;
  }
  void advance() { next_ = 1 - next_; }

 private:
  // Sixteen keys: where they begin, and the values of their first num_pairs pairs, zeros the rest.
  void set_group(Tile& tile,
                 int64_t group,
                 const BFloat16* keys,
                 const BFloat16* values,
                 int64_t num_pairs) const {
    constexpr int64_t kGroupPairs = kLanes / 2;
    tile.keys[static_cast<size_t>(group)] = keys;
    for (int64_t pair = 0; pair < kGroupPairs; ++pair) {
      tile.values[static_cast<size_t>(group * kGroupPairs + pair)] =
          pair < num_pairs ? values + 2 * pair * width_ : zeros_;
    }
  }

  // Groups from `group` on that lie side by side in one block.
  [[nodiscard]] static int64_t run_length(const Tile& tile, int64_t group) {
    const BFloat16* keys = tile.keys[static_cast<size_t>(group)];
    int64_t count = 1;
    while (keys != nullptr && group + count < kKeyVectors &&
           tile.keys[static_cast<size_t>(group + count)] == keys + count * kPairs) {
      ++count;
    }
    return count;
  }

  // Puts zeros in place of the second of a pair of keys.
  void mask_second(const BFloat16*& pair) {
    for (int64_t i = 0; i < 2 * width_; i += 2) {
      edge_[i] = pair[i];
      edge_[i + 1] = BFloat16();
    }
    pair = edge_;
  }

  TaskCache cache_;
  int64_t width_;
  BFloat16* zeros_;  // [2 * value_dim]
  BFloat16* edge_;   // [value_dim, 2]
  Tile tiles_[2];
  size_t next_ = 0;
};

// Tiles of caches of KvOrder::kRows, laid out in panels; otherwise as PairTiles.
class RowTiles {
 public:
  static constexpr int64_t kFetches = 2 * kKeyVectors;
  static int64_t memory_size(const RaggedAttentionArgs& args) {
    const int64_t key_dim = round_up(args.q.shape[2], kPairs);
    const int64_t width = round_up(value_dim(args), kPairs);
    return kTileKeys * (key_dim + width) + std::max(key_dim, width);
  }
  RowTiles(const TaskCache& cache, BFloat16* memory)
      : cache_(cache),
        key_dim_(round_up(cache.args.q.shape[2], kPairs)),
        width_(round_up(value_dim(cache.args), kPairs)),
        keys_(memory),
        values_(keys_ + kTileKeys * key_dim_),
        zeros_(values_ + kTileKeys * width_) {
    std::fill_n(zeros_, std::max(key_dim_, width_), BFloat16());
    panels_.key_stride = 2 * kTileKeys;
    for (int64_t i = 0; i < kKeyVectors; ++i) {
      panels_.keys[static_cast<size_t>(i)] = keys_ + i * kPairs;
    }
    for (int64_t i = 0; i < kTilePairs; ++i) {
      panels_.values[static_cast<size_t>(i)] = values_ + i * 2 * width_;
    }
  }

  void locate(int64_t tile) {
    const int64_t begin = std::max(tile, cache_.range.begin);
    const int64_t end = std::min(tile + kTileKeys, cache_.range.end);
    Rows& found = rows_[next_];
    found.keys.fill(zeros_);
    found.values.fill(zeros_);
    found.held = 0;
    for (int64_t j = begin; j < end;) {
      const int64_t run_end = std::min(round_up(j + 1, cache_.block_size()), end);
      const int32_t block = cache_.block_of(j);
      if (block != kNoBlock) {
        add_rows(found, block, j - tile, run_end - tile, j % cache_.block_size());
      }
      j = run_end;
    }
  }
  void add_next(Fetcher& fetcher) const {
    const Rows& found = rows_[next_];
    for (size_t i = 0; i < kTileKeys; ++i) {
      if ((found.held >> i & 1) == 0) continue;
      fetcher.add(found.keys[i], key_dim_ / kPairs, kPairs);
      if (!is_latent()) fetcher.add(found.values[i], width_ / kPairs, kPairs);
    }
  }
  [[nodiscard]] uint64_t held() const { return rows_[1 - next_].held; }
  const Tile& take(Fetcher& fetcher) {
    const Rows& taken = rows_[1 - next_];
    lay_out_keys(taken, fetcher);
    lay_out_values(taken, fetcher);
    panels_.held = taken.held;
    return panels_;
  }
  void advance() { next_ = 1 - next_; }

 private:
  // Where the rows of a tile lie in the cache.
  struct Rows {
    std::array<const BFloat16*, kTileKeys> keys;
    std::array<const BFloat16*, kTileKeys> values;
    uint64_t held = 0;
  };

  [[nodiscard]] bool is_latent() const { return cache_.args.v_cache.empty(); }

  // Rows [begin, end) of a tile, the first of which is token `token` of a block.
  void add_rows(Rows& rows, int32_t block, int64_t begin, int64_t end, int64_t token) const {
    const TensorView& k_cache = cache_.args.k_cache;
    const TensorView& v_cache = is_latent() ? k_cache : cache_.args.v_cache;
    const BFloat16* key = cache_.head_of(k_cache, block) + token * k_cache.shape[3];
    const BFloat16* value = cache_.head_of(v_cache, block) + token * v_cache.shape[3];
    for (int64_t i = begin; i < end; ++i) {
      rows.keys[static_cast<size_t>(i)] = key + (i - begin) * k_cache.shape[3];
      rows.values[static_cast<size_t>(i)] = value + (i - begin) * v_cache.shape[3];
    }
    rows.held |= bit_range(begin, end);
  }

  // Keys transposed, 16 keys by 16 pairs at a time.
  void lay_out_keys(const Rows& rows, Fetcher& fetcher) {
    const int64_t width = cache_.args.q.shape[2];
    for (int64_t group = 0; group < kTileKeys; group += kLanes) {
      fetcher.fetch();
      for (int64_t k = 0; k < key_dim_; k += kPairs) {
        const __mmask32 mask = first_pairs(width - k);
        __m512i pairs[kLanes];
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) {
          pairs[i] = load_bf16(mask, rows.keys[static_cast<size_t>(group + i)] + k);
        }
        transpose_16x16(pairs);
        BFloat16* panel = keys_ + (k * kTileKeys + 2 * group);
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) {
          _mm512_store_si512(panel + 2 * i * kTileKeys, pairs[i]);
        }
      }
    }
  }

  // Neighbouring values interleaved.
  void lay_out_values(const Rows& rows, Fetcher& fetcher) {
    // Lanes of 16 bits: element i of the even key, of the odd key, i + 1 of the even key, ...
    alignas(64) static constexpr auto kOrder = [] {
      std::array<std::array<uint16_t, kPairs>, 2> order{};
      for (size_t i = 0; i < 2 * kPairs; ++i) {
        order[i / kPairs][i % kPairs] = static_cast<uint16_t>(i / 2 + (i % 2) * kPairs);
      }
      return order;
    }();
    const __m512i lower = _mm512_load_si512(kOrder[0].data());
    const __m512i upper = _mm512_load_si512(kOrder[1].data());
    const int64_t width = value_dim(cache_.args);
    BFloat16* panel = values_;
    for (size_t key = 0; key < kTileKeys; key += 2) {
      if (key % kLanes == 0) fetcher.fetch();
      for (int64_t k = 0; k < width_; k += kPairs, panel += 2 * kPairs) {
        const __mmask32 mask = first_pairs(width - k);
        const __m512i even = load_bf16(mask, rows.values[key] + k);
        const __m512i odd = load_bf16(mask, rows.values[key + 1] + k);
        _mm512_store_si512(panel, _mm512_permutex2var_epi16(even, lower, odd));
        _mm512_store_si512(panel + kPairs, _mm512_permutex2var_epi16(even, upper, odd));
      }
    }
  }

  TaskCache cache_;
  int64_t key_dim_;
  int64_t width_;
  BFloat16* keys_;    // [key_dim / 2, kTileKeys, 2]
  BFloat16* values_;  // [kTilePairs, value_dim, 2]
  BFloat16* zeros_;   // in place of rows that are not seen
  Rows rows_[2];
  size_t next_ = 0;
  Tile panels_;
};

// The tiles of a task that hold keys, one after the other: meet(tile, begin, fetcher) for the one
// from position `begin` on, which calls fetch() `num_fetches` times, or nearly. `memory` has room
// for Tiles::memory_size(args) elements.
template <typename Tiles, typename Meet>
void for_each_tile(const RaggedAttentionArgs& args,
                   const AttentionTask& task,
                   TaskRows& rows,
                   int64_t num_fetches,
                   BFloat16* memory,
                   const Meet& meet) {
  Tiles tiles({args, task, task.keys}, memory);
  const int64_t first = task.keys.begin / kTileKeys * kTileKeys;
  tiles.locate(first);
  for (int64_t begin = first; begin < task.keys.end; begin += kTileKeys) {
    tiles.advance();
    tiles.locate(begin + kTileKeys);
    if (tiles.held() == 0) continue;
    rows.enter(begin);
    Fetcher fetcher;
    tiles.add_next(fetcher);
    fetcher.plan(Tiles::kFetches + num_fetches);
    meet(tiles.take(fetcher), begin, fetcher);
  }
}

}  // namespace lamina::kernels::cpu::avx512
LAMINA_END_AVX512
