// The online softmax of ragged_attention.cc in pairs of bf16, with the same promises. A vector
// holds one pair of 16 keys (pairs along the head dimension) or of 16 elements of a value (pairs of
// keys); all rows of a task meet each tile of 64 keys, four at a time, by broadcasting their own
// pairs. Caches of KvOrder::kPairs are read as they lie; of others each tile is first laid out in
// panels of that order, and the codes of quantised ones as bf16. While a tile is met, the next is
// fetched.
//   A row sees keys through a mask: others count as scores of minus infinity, and values that
// nobody may see as zeros, so a row's bits do not depend on which rows are met beside it.
#include "kernels/cpu/ragged_attention_bf16.h"

#include <cmath>

#include "base/checked_math.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/bf16_tiles-inl.h"
#include "kernels/cpu/code_tiles-inl.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu {
namespace {

using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file

// Scores are kept as powers of two, and those of a row refer to an integer power: so a softmax
// weight that is rounded to bf16 is the same but for a factor of two whatever keys were met before.
// A row whose keys are dealt out to several workers comes out as it would in one piece, but for the
// order of f32 sums.
constexpr float kLog2E = 1.44269504F;
constexpr float kLn2 = 0.693147181F;

// How far, in powers of two, scores may exceed what their row refers to.
constexpr float kHeadroom = 60.0F;

constexpr int64_t kTileRows = 4;  // with 4 vectors each: 16 accumulators

// Work space of one task beside its tiles.
struct Space {
  int64_t num_rows = 0;
  int64_t num_key_pairs = 0;
  int64_t value_dim = 0;  // in whole vectors of f32
  // The pairs of kTileRows rows side by side: [tiles of rows, num_key_pairs, kTileRows, 2].
  BFloat16* queries = nullptr;
  RowSums rows;

  static int64_t num_floats(const RaggedAttentionArgs& args, const AttentionTask& task) {
    static_assert(sizeof(RowState) == 2 * sizeof(float));
    const int64_t count = cpu::num_rows(args, task);
    return num_query_pairs(args, count) + count * (round_up(cpu::value_dim(args), kLanes) + 2);
  }
  Space(const RaggedAttentionArgs& args, const AttentionTask& task, float* memory)
      : num_rows(cpu::num_rows(args, task)),
        num_key_pairs(ceil_div(args.q.shape[2], int64_t{2})),
        value_dim(round_up(cpu::value_dim(args), kLanes)),
        queries(reinterpret_cast<BFloat16*>(memory)) {
    float* sums = memory + num_query_pairs(args, num_rows);
    rows = {reinterpret_cast<RowState*>(sums + num_rows * value_dim), sums, value_dim};
  }

 private:
  // In whole vectors.
  static int64_t num_query_pairs(const RaggedAttentionArgs& args, int64_t count) {
    return round_up(round_up(count, kTileRows) * ceil_div(args.q.shape[2], int64_t{2}), kLanes);
  }
};

// What up to kTileRows rows that are met together have of their own.
struct RowMasks {
  uint64_t visible[kTileRows] = {};
  int64_t position[kTileRows] = {};
  float slope[kTileRows] = {};
};

// Softmax numerators of a row, as bf16; not set at first.
struct RowWeights {
  __m256i of_vector[kKeyVectors];

  // Those of keys 2 i and 2 i + 1.
  [[nodiscard]] HWY_INLINE const void* pair(int64_t i) const {
    return reinterpret_cast<const char*>(of_vector) +
           i * 2 * static_cast<int64_t>(sizeof(BFloat16));
  }
};

// scores[r] = query row r . keys of the tile.
template <int kRows>
HWY_INLINE void score_keys(const Space& space,
                           const Tile& tile,
                           int64_t row,
                           Fetcher& fetcher,
                           float (&scores)[kTileRows][kTileKeys]) {
  __m512 sums[kRows][kKeyVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVectors; ++v) sums[r][v] = _mm512_setzero_ps();
  }
  const BFloat16* queries = space.queries + 2 * row * space.num_key_pairs;
  const BFloat16* keys[kKeyVectors];
#pragma GCC unroll 4
  for (size_t v = 0; v < kKeyVectors; ++v) keys[v] = tile.keys[v];
  for (int64_t k = 0; k < space.num_key_pairs; ++k) {
    fetcher.fetch();
    __m512i pairs[kKeyVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVectors; ++v) {
      pairs[v] = load_bf16(keys[v]);
      keys[v] += tile.key_stride;
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512i query = broadcast_pair(queries + 2 * r);
#pragma GCC unroll 4
      for (int v = 0; v < kKeyVectors; ++v) sums[r][v] = dot_pairs(sums[r][v], query, pairs[v]);
    }
    queries += 2 * kTileRows;
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVectors; ++v) _mm512_store_ps(scores[r] + v * kLanes, sums[r][v]);
  }
}

// What is done to scores beyond the scale, which come as powers of e; `distance` is the position of
// the tile less the query's.
HWY_INLINE __m512 bend_scores(const RaggedAttentionArgs& args,
                              __m512 score,
                              float slope,
                              int64_t distance) {
  if (args.soft_cap) {  // cap tanh(s / cap), tanh(y) = sign(y) (1 - e) / (1 + e), e = e^(-2 |y|)
    const __m512 cap = _mm512_set1_ps(*args.soft_cap);
    const __m512 one = _mm512_set1_ps(1.0F);
    const __m512 y = _mm512_div_ps(score, cap);
    const __m512 e = exp2_below(_mm512_mul_ps(_mm512_abs_ps(y), _mm512_set1_ps(-2.0F * kLog2E)),
                                _mm512_setzero_ps());
    const __m512 tanh = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    const __m512 sign = _mm512_and_ps(y, _mm512_set1_ps(-0.0F));
    score = _mm512_mul_ps(_mm512_or_ps(tanh, sign), cap);
  }
  if (slope == 0.0F) return score;
  const __m512 steps = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512 offset = _mm512_add_ps(steps, _mm512_set1_ps(static_cast<float>(distance)));
  return _mm512_fmadd_ps(_mm512_set1_ps(slope), offset, score);
}

// Turns dot products of a row into scores, powers of two, minus infinity for keys that it does not
// see. Returns a vector that has the largest of them in some lane.
HWY_INLINE __m512 finish_scores(const RaggedAttentionArgs& args,
                                const Tile& tile,
                                uint64_t visible,
                                float slope,
                                int64_t distance,
                                float (&scores)[kTileKeys]) {
  const bool is_bent = args.soft_cap.has_value() || slope != 0.0F;
  const __m512 scale = _mm512_set1_ps(is_bent ? args.scale : args.scale * kLog2E);
  const __m512 hidden = _mm512_set1_ps(kNegativeInfinity);
  __m512 tops = hidden;
#pragma GCC unroll 4
  for (size_t v = 0; v < kKeyVectors; ++v) {
    const auto mask = static_cast<__mmask16>(visible >> (v * kLanes));
    __m512 score = _mm512_mul_ps(_mm512_load_ps(scores + v * kLanes), scale);
    if (tile.key_scales[v] != nullptr) {
      score = _mm512_mul_ps(score, _mm512_loadu_ps(tile.key_scales[v]));
    }
    if (is_bent) {
      score = bend_scores(args, score, slope, distance + static_cast<int64_t>(v) * kLanes);
      score = _mm512_mul_ps(score, _mm512_set1_ps(kLog2E));
    }
    score = _mm512_mask_mov_ps(hidden, mask, score);
    tops = _mm512_max_ps(tops, score);
    _mm512_store_ps(scores + v * kLanes, score);
  }
  return tops;
}

// Softmax numerators of kRows rows, as bf16. totals[r]: a vector whose lanes add up to row r's sum.
template <int kRows>
HWY_INLINE void weigh_keys(const Tile& tile,
                           const RowMasks& masks,
                           const float (&scores)[kTileRows][kTileKeys],
                           const RowState* states,
                           RowWeights (&weights)[kTileRows],
                           __m512 (&totals)[kTileRows]) {
#pragma GCC unroll 4
  for (__m512& total : totals) total = _mm512_setzero_ps();
  // The first keys of all rows first: values can meet them while the others are weighed.
#pragma GCC unroll 4
  for (size_t v = 0; v < kKeyVectors; ++v) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const auto mask = static_cast<__mmask16>(masks.visible[r] >> (v * kLanes));
      const __m512 score = _mm512_load_ps(scores[r] + v * kLanes);
      const __m512 weight = exp2_below(score, _mm512_set1_ps(states[r].top));
      const __m512 seen = _mm512_maskz_mov_ps(mask, weight);
      totals[r] = _mm512_add_ps(totals[r], seen);
      __m512 scaled = seen;
      if (tile.value_scales[v] != nullptr) {
        scaled = _mm512_maskz_mul_ps(mask, seen, _mm512_loadu_ps(tile.value_scales[v]));
      }
      weights[r].of_vector[v] = round_to_bf16(scaled);
    }
  }
}

// Moves a row's reference up to an integer power at or above `score`.
HWY_NOINLINE void raise_reference(RowState& state, float* sums, int64_t width, float score) {
  const float top = std::ceil(score);
  const float shrink = std::exp2(state.top - top);
  for (int64_t i = 0; i < width; ++i) sums[i] *= shrink;
  state = {top, state.total * shrink};
}

// Turns dot products of rows [row, row + kRows), which meet a tile from position `begin` on, into
// softmax numerators and updates their states. A reference is left behind the largest score as long
// as numbers are far from overflow: so that numerators seldom wait for the tile's largest score.
template <int kRows>
HWY_INLINE void update_softmax(const RaggedAttentionArgs& args,
                               const Tile& tile,
                               const RowMasks& masks,
                               int64_t begin,
                               int64_t row,
                               const Space& space,
                               float (&scores)[kTileRows][kTileKeys],
                               RowWeights (&weights)[kTileRows]) {
  RowState* states = space.rows.states + row;
  __m512 lanes[kTileRows];
#pragma GCC unroll 4
  for (int r = 0; r < kTileRows; ++r) {
    lanes[r] = r < kRows ? finish_scores(args,
                                         tile,
                                         masks.visible[r],
                                         masks.slope[r],
                                         begin - masks.position[r],
                                         scores[r])
                         : _mm512_set1_ps(kNegativeInfinity);
  }
  alignas(16) float tops[kTileRows];
  _mm_store_ps(tops, combine_lanes_of_4<Max>(lanes[0], lanes[1], lanes[2], lanes[3]));
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    if (tops[r] <= states[r].top + kHeadroom) continue;
    raise_reference(
        states[r], space.rows.sums + (row + r) * space.value_dim, space.value_dim, tops[r]);
  }
  weigh_keys<kRows>(tile, masks, scores, states, weights, lanes);
  alignas(16) float totals[kTileRows];
  _mm_store_ps(totals, combine_lanes_of_4<Add>(lanes[0], lanes[1], lanes[2], lanes[3]));
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) states[r].total += totals[r];
}

// sums += weights . values, over kVectors vectors of the values from `column` on.
template <int kRows, int kVectors>
HWY_INLINE void add_values(const Space& space,
                           const Tile& tile,
                           int64_t row,
                           int64_t column,
                           Fetcher& fetcher,
                           const RowWeights (&weights)[kTileRows]) {
  __m512 sums[kRows][kVectors];
  float* to = space.rows.sums + row * space.value_dim + column;
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = _mm512_loadu_ps(to + r * space.value_dim + v * kLanes);
    }
  }
  for (int64_t pair = 0; pair < kTilePairs; ++pair) {
    fetcher.fetch();
    const BFloat16* values = tile.values[static_cast<size_t>(pair)] + 2 * column;
    __m512i pairs[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) pairs[v] = load_bf16(values + v * kPairs);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512i weight = broadcast_4(weights[r].pair(pair));
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

// Rows [row, row + kRows) meet the tile from position `begin` on.
template <int kRows>
HWY_NOINLINE void meet_rows(const RaggedAttentionArgs& args,
                            Space& space,
                            const Tile& tile,
                            int64_t row,
                            int64_t begin,
                            const RowMasks& masks,
                            Fetcher& fetcher) {
  alignas(64) float scores[kTileRows][kTileKeys];
  RowWeights weights[kTileRows];
  score_keys<kRows>(space, tile, row, fetcher, scores);
  update_softmax<kRows>(args, tile, masks, begin, row, space, scores, weights);
  int64_t column = 0;
  for (; column + 4 * kLanes <= space.value_dim; column += 4 * kLanes) {
    add_values<kRows, 4>(space, tile, row, column, fetcher, weights);
  }
  for (; column < space.value_dim; column += kLanes) {
    add_values<kRows, 1>(space, tile, row, column, fetcher, weights);
  }
}

// Gives the rows of a task one after the other: what of a tile from position `begin` on they see.
class RowCursor {
 public:
  RowCursor(const RaggedAttentionArgs& args,
            const AttentionTask& task,
            uint64_t held,
            int64_t begin)
      : args_(args), task_(task), held_(held), begin_(begin), position_(task.position) {
    visible_ = visible();
  }

  // The next `count` rows; false if none of them sees any key.
  bool take(int64_t count, RowMasks& masks) {
    uint64_t any = 0;
    for (int64_t r = 0; r < count; ++r) {
      masks.position[r] = position_;
      masks.visible[r] = visible_;
      any |= visible_;
      if (!args_.alibi_slopes.empty()) {
        const int64_t head = task_.kv_head * group_size_ + head_;
        masks.slope[r] = args_.alibi_slopes[static_cast<size_t>(head)];
      }
      if (++head_ < group_size_) continue;
      head_ = 0;
      ++position_;
      visible_ = visible();
    }
    return any != 0;
  }

 private:
  [[nodiscard]] uint64_t visible() const {
    return held_ & bit_range(first_visible(args_, position_) - begin_, position_ + 1 - begin_);
  }

  const RaggedAttentionArgs& args_;
  const AttentionTask& task_;
  uint64_t held_;
  int64_t begin_;
  int64_t position_;
  int64_t group_size_ = group_size(args_);
  int64_t head_ = 0;  // in the group
  uint64_t visible_;
};

// All rows of a task meet the tile from position `begin` on.
void meet_tile(const RaggedAttentionArgs& args,
               const AttentionTask& task,
               Space& space,
               const Tile& tile,
               int64_t begin,
               Fetcher& fetcher) {
  const int64_t count = space.num_rows;
  RowCursor cursor(args, task, tile.held, begin);
  for (int64_t row = 0; row < count; row += kTileRows) {
    const int64_t height = std::min(kTileRows, count - row);
    RowMasks masks;
    if (!cursor.take(height, masks)) continue;
    switch (height) {
      case 1:
        meet_rows<1>(args, space, tile, row, begin, masks, fetcher);
        break;
      case 2:
        meet_rows<2>(args, space, tile, row, begin, masks, fetcher);
        break;
      case 3:
        meet_rows<3>(args, space, tile, row, begin, masks, fetcher);
        break;
      default:
        meet_rows<4>(args, space, tile, row, begin, masks, fetcher);
        break;
    }
  }
}

void load_queries(const RaggedAttentionArgs& args, const AttentionTask& task, Space& space) {
  const int64_t head_dim = args.q.shape[2];
  if (head_dim % 2 == 1)
    std::fill_n(space.queries,
                2 * kTileRows * space.num_key_pairs * ceil_div(space.num_rows, kTileRows),
                BFloat16());
  int64_t row = 0;
  for (int64_t t = task.begin; t < task.end; ++t) {
    const BFloat16* from = args.q.row<BFloat16>(t) + task.kv_head * group_size(args) * head_dim;
    for (int64_t g = 0; g < group_size(args); ++g, ++row) {
      const int64_t first_of_tile = row / kTileRows * kTileRows;
      BFloat16* to = space.queries + 2 * (first_of_tile * space.num_key_pairs + row % kTileRows);
      for (int64_t i = 0; i < head_dim; ++i) {
        to[i / 2 * 2 * kTileRows + i % 2] = *from++;
      }
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
          saw_nothing ? kNegativeInfinity : state.top * kLn2 + std::log(state.total);
    }
  }
}

// What start_rows() made of the sinks, as this kernel has states: powers of two.
void convert_sinks(const RaggedAttentionArgs& args, Space& space) {
  if (args.sinks.empty() || args.phase == AttentionPhase::kRest) return;
  for (int64_t row = 0; row < space.num_rows; ++row) {
    const float sink = space.rows.states[row].top * kLog2E;
    const float top = std::ceil(sink);
    space.rows.states[row] = {top, std::exp2(sink - top)};
  }
}

// Meets the tiles of a task.
template <typename Tiles>
void meet_tiles(const RaggedAttentionArgs& args,
                const AttentionTask& task,
                Space& space,
                BFloat16* memory) {
  const KeyRange range = key_range(args, task);
  Tiles tiles({args, task, range}, memory);
  // A call of fetch() for each pair that rows are multiplied with, or nearly.
  const int64_t num_fetches =
      Tiles::kFetches +
      ceil_div(space.num_rows, kTileRows) *
          (space.num_key_pairs + kTilePairs * ceil_div(space.value_dim, 4 * kLanes));
  const int64_t first = range.begin / kTileKeys * kTileKeys;
  tiles.locate(first);
  for (int64_t begin = first; begin < range.end; begin += kTileKeys) {
    tiles.advance();
    tiles.locate(begin + kTileKeys);
    if (tiles.held() == 0) continue;
    Fetcher fetcher;
    tiles.add_next(fetcher);
    fetcher.plan(num_fetches);
    meet_tile(args, task, space, tiles.take(fetcher), begin, fetcher);
  }
}

template <typename Tiles>
void run_task(const RaggedAttentionArgs& args, const AttentionTask& task) {
  thread_local Scratch scratch;
  // Tiles first: they want whole cache lines.
  const int64_t tile_floats = round_up(Tiles::memory_size(args), kPairs) / 2;
  float* memory = scratch.floats(static_cast<size_t>(tile_floats + Space::num_floats(args, task)));
  Space space(args, task, memory + tile_floats);
  load_queries(args, task, space);
  start_rows(args, task, space.rows);
  convert_sinks(args, space);
  meet_tiles<Tiles>(args, task, space, reinterpret_cast<BFloat16*>(memory));
  if (args.phase == AttentionPhase::kCached) return save_rows(args, task, space.rows);
  if (args.out.dtype == DType::kF32) {
    store_rows<float>(args, task, space);
  } else {
    store_rows<BFloat16>(args, task, space);
  }
}

}  // namespace

void ragged_attention_bf16(const RaggedAttentionArgs& args, ThreadPool& pool) {
  for_each_attention_task(args, pool, [&args](const AttentionTask& task) {
    if (args.k_cache.dtype == DType::kI8) {
      run_task<CodeTiles<int8_t>>(args, task);
    } else if (args.k_cache.dtype == DType::kF8E4M3) {
      run_task<CodeTiles<Float8E4M3>>(args, task);
    } else if (args.order == KvOrder::kPairs) {
      run_task<PairTiles>(args, task);
    } else {
      run_task<RowTiles>(args, task);
    }
  });
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AVX512

namespace lamina::kernels::cpu {

bool reads_pairs(const KvShape& shape) {
  const bool is_read = shape.dtype == DType::kBF16 || is_quantized(shape.dtype);
  return uses_bf16_dot() && is_read && shape.q_dtype == DType::kBF16 &&
         shape.block_size % avx512::kLanes == 0 && shape.key_dim % 2 == 0 && shape.value_dim > 0 &&
         shape.value_dim % avx512::kLanes == 0;
}

}  // namespace lamina::kernels::cpu
