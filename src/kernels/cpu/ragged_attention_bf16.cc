// The online softmax of ragged_attention.cc in pairs of bf16, with the same promises. Each tile of
// 64 keys is laid out once in panels, in which a vector holds one pair of 16 keys (pairs along the
// head dimension) or of 16 elements of a value (pairs of keys); then all rows of the task meet it,
// four at a time, by broadcasting their own pairs. While a tile is laid out, the next is fetched.
//   A row sees keys through a mask: others count as scores of minus infinity and values of zero, so
// a row's bits do not depend on which other rows are met beside it.
#include "kernels/cpu/ragged_attention_bf16.h"

#include <array>
#include <cmath>

#include "base/checked_math.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu {
namespace {

using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file

constexpr int64_t kTileRows = 4;  // with 4 vectors each: 16 accumulators
constexpr int64_t kKeyVectors = kTileKeys / kLanes;
constexpr int64_t kTilePairs = kTileKeys / 2;  // pairs of keys

// Work space of one task, cut from one scratch allocation.
struct Space {
  int64_t key_dim = 0;  // in whole vectors of bf16, as all widths here
  int64_t value_dim = 0;
  BFloat16* queries = nullptr;  // [rows, key_dim]
  BFloat16* keys = nullptr;     // [key_dim / 2, kTileKeys, 2]
  BFloat16* values = nullptr;   // [kTilePairs, value_dim, 2]
  BFloat16* zeros = nullptr;    // [max(key_dim, value_dim)]: in place of keys that are not seen
  RowSums rows;

  Space(const RaggedAttentionArgs& args, const AttentionTask& task, Scratch& scratch)
      : key_dim(round_up(args.q.shape[2], kPairs)),
        value_dim(round_up(cpu::value_dim(args), kPairs)) {
    const int64_t count = num_rows(args, task);
    const int64_t num_zeros = std::max(key_dim, value_dim);
    const int64_t num_bf16 = kTileKeys * (key_dim + value_dim) + count * key_dim + num_zeros;
    static_assert(sizeof(RowState) == 2 * sizeof(float));
    float* memory = scratch.floats(static_cast<size_t>(num_bf16 / 2 + count * (value_dim + 2)));
    keys = reinterpret_cast<BFloat16*>(memory);  // panels first: they want whole cache lines
    values = keys + kTileKeys * key_dim;
    queries = values + kTileKeys * value_dim;
    zeros = queries + count * key_dim;
    float* sums = memory + num_bf16 / 2;
    rows = {reinterpret_cast<RowState*>(sums + count * value_dim), sums, value_dim};
    std::fill_n(zeros, num_zeros, BFloat16());
  }
};

// Where the rows of a tile lie in the cache.
struct TileRows {
  std::array<const BFloat16*, kTileKeys> keys;
  std::array<const BFloat16*, kTileKeys> values;
  uint64_t held = 0;  // keys within the range and in blocks that are held here
};

// Fetches the rows of the tile that comes next into the second-level cache, some at a time between
// the parts of the work on this one: at once they would wait for each other.
class Fetcher {
 public:
  // fetch() will be called `num_calls` times; rows are of so many elements.
  Fetcher(const TileRows& rows, int64_t key_width, int64_t value_width, int64_t num_calls)
      : rows_(rows),
        key_width_(key_width),
        value_width_(value_width),
        step_(ceil_div(kTileKeys, num_calls)) {}

  void fetch() {
    const int64_t end = std::min(next_ + step_, kTileKeys);
    for (; next_ < end; ++next_) {
      const auto i = static_cast<size_t>(next_);
      for (int64_t k = 0; k < key_width_; k += kPairs) {
        _mm_prefetch(rows_.keys[i] + k, _MM_HINT_T1);
      }
      for (int64_t k = 0; k < value_width_; k += kPairs) {
        _mm_prefetch(rows_.values[i] + k, _MM_HINT_T1);
      }
    }
  }

 private:
  const TileRows& rows_;
  int64_t key_width_;
  int64_t value_width_;
  int64_t step_;
  int64_t next_ = 0;
};

// Bits [begin, end), as far as they are bits of a tile.
uint64_t bit_range(int64_t begin, int64_t end) {
  begin = std::clamp<int64_t>(begin, 0, kTileKeys);
  end = std::clamp<int64_t>(end, 0, kTileKeys);
  if (begin >= end) return 0;
  return (~uint64_t{0} >> (kTileKeys - (end - begin))) << begin;
}

// The tile from position `tile` on, as far as it lies in `range`.
void locate(const RaggedAttentionArgs& args,
            const AttentionTask& task,
            const Space& space,
            KeyRange range,
            int64_t tile,
            TileRows& rows) {
  const bool is_latent = args.v_cache.empty();
  const int64_t block_size = args.k_cache.shape[2];
  const int32_t* table = args.batch.block_tables.data() + task.b * args.batch.max_blocks;
  const int64_t begin = std::max(tile, range.begin);
  const int64_t end = std::min(tile + kTileKeys, range.end);
  rows.keys.fill(space.zeros);
  rows.values.fill(space.zeros);
  rows.held = 0;
  for (int64_t j = begin; j < end;) {
    const int64_t run_end = std::min(round_up(j + 1, block_size), end);
    const int32_t block = table[j / block_size];
    if (block != kNoBlock) {
      const int64_t row = task.kv_head * block_size + j % block_size;
      const BFloat16* key = args.k_cache.row<BFloat16>(block) + row * args.k_cache.shape[3];
      const BFloat16* value =
          is_latent ? key : args.v_cache.row<BFloat16>(block) + row * args.v_cache.shape[3];
      const int64_t value_stride = (is_latent ? args.k_cache : args.v_cache).shape[3];
      for (int64_t i = j; i < run_end; ++i) {
        rows.keys[static_cast<size_t>(i - tile)] = key + (i - j) * args.k_cache.shape[3];
        rows.values[static_cast<size_t>(i - tile)] = value + (i - j) * value_stride;
      }
      rows.held |= bit_range(j - tile, run_end - tile);
    }
    j = run_end;
  }
}

void lay_out_keys(const TileRows& rows, int64_t width, Space& space, Fetcher& fetcher) {
  for (int64_t group = 0; group < kTileKeys; group += kLanes) {
    fetcher.fetch();
    for (int64_t k = 0; k < space.key_dim; k += kPairs) {
      const __mmask32 mask = first_pairs(width - k);
      __m512i pairs[kLanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i) {
        const auto key = static_cast<size_t>(group + i);
        pairs[i] = load_bf16(mask, rows.keys[key] + k);
      }
      transpose_16x16(pairs);
      BFloat16* panel = space.keys + (k * kTileKeys + 2 * group);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i) {
        _mm512_store_si512(panel + 2 * i * kTileKeys, pairs[i]);
      }
    }
  }
}

void lay_out_values(const TileRows& rows, int64_t width, Space& space, Fetcher& fetcher) {
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
  BFloat16* panel = space.values;
  for (size_t key = 0; key < kTileKeys; key += 2) {
    if (key % 16 == 0) fetcher.fetch();
    for (int64_t k = 0; k < space.value_dim; k += kPairs, panel += 2 * kPairs) {
      const __mmask32 mask = first_pairs(width - k);
      const __m512i even = load_bf16(mask, rows.values[key] + k);
      const __m512i odd = load_bf16(mask, rows.values[key + 1] + k);
      _mm512_store_si512(panel, _mm512_permutex2var_epi16(even, lower, odd));
      _mm512_store_si512(panel + kPairs, _mm512_permutex2var_epi16(even, upper, odd));
    }
  }
}

// What up to kTileRows rows that are met together have of their own.
struct RowMasks {
  uint64_t visible[kTileRows] = {};
  int64_t position[kTileRows] = {};
  float slope[kTileRows] = {};
};

// scores[r] = query row r . keys of the tile.
template <int kRows>
HWY_INLINE void score_keys(const Space& space, int64_t row, float (&scores)[kTileRows][kTileKeys]) {
  __m512 sums[kRows][kKeyVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVectors; ++v) sums[r][v] = _mm512_setzero_ps();
  }
  const BFloat16* queries = space.queries + row * space.key_dim;
  const BFloat16* keys = space.keys;
  for (int64_t k = 0; k < space.key_dim; k += 2, keys += 2 * kTileKeys) {
    __m512i pairs[kKeyVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVectors; ++v) pairs[v] = load_bf16(keys + v * kPairs);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512i query = broadcast_pair(queries + r * space.key_dim + k);
#pragma GCC unroll 4
      for (int v = 0; v < kKeyVectors; ++v) sums[r][v] = dot_pairs(sums[r][v], query, pairs[v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVectors; ++v) _mm512_store_ps(scores[r] + v * kLanes, sums[r][v]);
  }
}

// What is done to scores beyond the scale; `distance` is the position of the tile less the query's.
HWY_INLINE __m512 bend_scores(const RaggedAttentionArgs& args,
                              __m512 score,
                              float slope,
                              int64_t distance) {
  if (args.soft_cap) {  // cap tanh(s / cap), tanh(y) = sign(y) (1 - e) / (1 + e), e = exp(-2 |y|)
    const __m512 cap = _mm512_set1_ps(*args.soft_cap);
    const __m512 one = _mm512_set1_ps(1.0F);
    const __m512 y = _mm512_div_ps(score, cap);
    const __m512 e = exp_of_negative(_mm512_mul_ps(_mm512_abs_ps(y), _mm512_set1_ps(-2.0F)));
    const __m512 tanh = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    const __m512 sign = _mm512_and_ps(y, _mm512_set1_ps(-0.0F));
    score = _mm512_mul_ps(_mm512_or_ps(tanh, sign), cap);
  }
  if (slope == 0.0F) return score;
  const __m512 steps = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512 offset = _mm512_add_ps(steps, _mm512_set1_ps(static_cast<float>(distance)));
  return _mm512_fmadd_ps(_mm512_set1_ps(slope), offset, score);
}

// Turns a row's scores into softmax numerators, as bf16, and updates its state. Returns the factor
// by which what was summed before must shrink.
HWY_INLINE float update_softmax(const RaggedAttentionArgs& args,
                                const float (&raw)[kTileKeys],
                                uint64_t visible,
                                float slope,
                                int64_t distance,
                                RowState& state,
                                BFloat16* weights) {
  const __m512 scale = _mm512_set1_ps(args.scale);
  const __m512 hidden = _mm512_set1_ps(kNegativeInfinity);
  __m512 tops = hidden;
  __m512 scores[kKeyVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVectors; ++v) {
    const auto mask = static_cast<__mmask16>(visible >> (v * kLanes));
    const __m512 scaled = _mm512_mul_ps(_mm512_load_ps(raw + v * kLanes), scale);
    const __m512 score = bend_scores(args, scaled, slope, distance + v * kLanes);
    scores[v] = _mm512_mask_mov_ps(hidden, mask, score);
    tops = _mm512_max_ps(tops, scores[v]);
  }
  const float top = std::max(state.top, _mm512_reduce_max_ps(tops));
  __m512 totals = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVectors; ++v) {
    const auto mask = static_cast<__mmask16>(visible >> (v * kLanes));
    const __m512 weight = exp_of_negative(_mm512_sub_ps(scores[v], _mm512_set1_ps(top)));
    const __m512 seen = _mm512_maskz_mov_ps(mask, weight);
    totals = _mm512_add_ps(totals, seen);
    _mm256_store_si256(reinterpret_cast<__m256i*>(weights + v * kLanes), round_to_bf16(seen));
  }
  const float shrink = state.top == top ? 1.0F : std::exp(state.top - top);
  state.total = state.total * shrink + _mm512_reduce_add_ps(totals);
  state.top = top;
  return shrink;
}

// sums = sums * shrink + weights . values, over kVectors vectors of the values from `column` on.
template <int kRows, int kVectors>
HWY_INLINE void add_values(const Space& space,
                           int64_t row,
                           int64_t column,
                           const BFloat16 (&weights)[kTileRows][kTileKeys],
                           const float (&shrinks)[kTileRows]) {
  __m512 sums[kRows][kVectors];
  float* to = space.rows.sums + row * space.value_dim + column;
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m512 before = _mm512_loadu_ps(to + r * space.value_dim + v * kLanes);
      sums[r][v] = _mm512_mul_ps(before, _mm512_set1_ps(shrinks[r]));
    }
  }
  const BFloat16* values = space.values + 2 * column;
  for (int64_t pair = 0; pair < kTilePairs; ++pair, values += 2 * space.value_dim) {
    __m512i pairs[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) pairs[v] = load_bf16(values + v * kPairs);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512i weight = broadcast_pair(weights[r] + 2 * pair);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = dot_pairs(sums[r][v], weight, pairs[v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      _mm512_storeu_ps(to + r * space.value_dim + v * kLanes, sums[r][v]);
    }
  }
}

// Rows [row, row + kRows) meet the tile from position `tile` on, which lies in the panels.
template <int kRows>
HWY_NOINLINE void meet_rows(const RaggedAttentionArgs& args,
                            Space& space,
                            int64_t row,
                            int64_t tile,
                            const RowMasks& masks,
                            Fetcher& fetcher) {
  alignas(64) float scores[kTileRows][kTileKeys];
  alignas(64) BFloat16 weights[kTileRows][kTileKeys];
  float shrinks[kTileRows];
  fetcher.fetch();
  score_keys<kRows>(space, row, scores);
  fetcher.fetch();
  for (int r = 0; r < kRows; ++r) {
    shrinks[r] = update_softmax(args,
                                scores[r],
                                masks.visible[r],
                                masks.slope[r],
                                tile - masks.position[r],
                                space.rows.states[row + r],
                                weights[r]);
  }
  fetcher.fetch();
  int64_t column = 0;
  for (; column + 4 * kLanes <= space.value_dim; column += 4 * kLanes) {
    add_values<kRows, 4>(space, row, column, weights, shrinks);
  }
  if (column < space.value_dim) add_values<kRows, 2>(space, row, column, weights, shrinks);
}

// All rows of a task meet the tile from position `tile` on.
void meet_tile(const RaggedAttentionArgs& args,
               const AttentionTask& task,
               Space& space,
               uint64_t held,
               int64_t tile,
               Fetcher& fetcher) {
  const int64_t group = group_size(args);
  const int64_t count = num_rows(args, task);
  for (int64_t row = 0; row < count; row += kTileRows) {
    const int64_t height = std::min(kTileRows, count - row);
    RowMasks masks;
    uint64_t any = 0;
    for (int64_t r = 0; r < height; ++r) {
      const int64_t position = task.position + (row + r) / group;
      const int64_t head = task.kv_head * group + (row + r) % group;
      masks.position[r] = position;
      masks.visible[r] =
          held & bit_range(first_visible(args, position) - tile, position + 1 - tile);
      if (!args.alibi_slopes.empty()) {
        masks.slope[r] = args.alibi_slopes[static_cast<size_t>(head)];
      }
      any |= masks.visible[r];
    }
    if (any == 0) continue;
    switch (height) {
      case 1:
        meet_rows<1>(args, space, row, tile, masks, fetcher);
        break;
      case 2:
        meet_rows<2>(args, space, row, tile, masks, fetcher);
        break;
      case 3:
        meet_rows<3>(args, space, row, tile, masks, fetcher);
        break;
      default:
        meet_rows<4>(args, space, row, tile, masks, fetcher);
        break;
    }
  }
}

void load_queries(const RaggedAttentionArgs& args, const AttentionTask& task, Space& space) {
  const int64_t head_dim = args.q.shape[2];
  BFloat16* to = space.queries;
  for (int64_t t = task.begin; t < task.end; ++t) {
    const BFloat16* from = args.q.row<BFloat16>(t) + task.kv_head * group_size(args) * head_dim;
    for (int64_t g = 0; g < group_size(args); ++g, from += head_dim, to += space.key_dim) {
      std::copy_n(from, head_dim, to);
      std::fill(to + head_dim, to + space.key_dim, BFloat16());
    }
  }
}

template <typename Out>
void store_rows(const RaggedAttentionArgs& args, const AttentionTask& task, const Space& space) {
  const int64_t width = args.out.shape[2];
  int64_t row = 0;
  for (int64_t t = task.begin; t < task.end; ++t) {
    for (int64_t g = 0; g < group_size(args); ++g, ++row) {
      const int64_t head = task.kv_head * group_size(args) + g;
      const RowState& state = space.rows.states[row];
      const float* sums = space.rows.sums + row * space.value_dim;
      const bool saw_nothing = state.top == kNegativeInfinity;
      const __m512 total = _mm512_set1_ps(saw_nothing ? 1.0F : state.total);
      Out* out = args.out.row<Out>(t) + head * width;
      for (int64_t i = 0; i < width; i += kLanes) {
        store_upto(_mm512_div_ps(_mm512_loadu_ps(sums + i), total), out + i, width - i);
      }
      if (args.lse.empty()) continue;
      args.lse.row<float>(t)[head] =
          saw_nothing ? kNegativeInfinity : state.top + std::log(state.total);
    }
  }
}

void run_task(const RaggedAttentionArgs& args, const AttentionTask& task) {
  thread_local Scratch scratch;
  Space space(args, task, scratch);
  load_queries(args, task, space);
  start_rows(args, task, space.rows);
  const KeyRange range = key_range(args, task);
  const int64_t value_width = value_dim(args);
  TileRows tiles[2];
  const int64_t first = range.begin / kTileKeys * kTileKeys;
  locate(args, task, space, range, first, tiles[0]);
  for (int64_t tile = first, i = 0; tile < range.end; tile += kTileKeys, i ^= 1) {
    const TileRows& rows = tiles[i];
    locate(args, task, space, range, tile + kTileKeys, tiles[i ^ 1]);
    if (rows.held == 0) continue;
    const int64_t num_groups = ceil_div(num_rows(args, task), kTileRows);
    Fetcher fetcher(tiles[i ^ 1],
                    args.q.shape[2],
                    args.v_cache.empty() ? 0 : value_width,
                    kKeyVectors + space.value_dim / kPairs + 3 * num_groups);
    lay_out_keys(rows, args.q.shape[2], space, fetcher);
    lay_out_values(rows, value_width, space, fetcher);
    meet_tile(args, task, space, rows.held, tile, fetcher);
  }
  if (args.phase == AttentionPhase::kCached) return save_rows(args, task, space.rows);
  if (args.out.dtype == DType::kF32) {
    store_rows<float>(args, task, space);
  } else {
    store_rows<BFloat16>(args, task, space);
  }
}

}  // namespace

void ragged_attention_bf16(const RaggedAttentionArgs& args, ThreadPool& pool) {
  for_each_attention_task(args, pool, [&args](const AttentionTask& task) { run_task(args, task); });
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AVX512
