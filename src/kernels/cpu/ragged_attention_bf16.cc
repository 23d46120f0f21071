// The online softmax of ragged_attention.cc in pairs of bf16, with the same promises. A vector
// holds one pair of 16 keys (pairs along the head dimension) or of 16 elements of a value (pairs of
// keys); all rows of a task meet each tile of 64 keys, four at a time, by broadcasting their own
// pairs. Caches of KvOrder::kPairs are read as they lie; of others each tile is first laid out in
// panels of that order, and the codes of quantised ones as bf16. While a tile is met, the next is
// fetched.
//   A row sees keys through a mask: others count as scores of minus infinity, and values that
// nobody may see as zeros, so a row's bits do not depend on which rows are met beside it.
#include "kernels/cpu/ragged_attention_bf16.h"

#include "base/checked_math.h"
#include "kernels/cpu/attention_run.h"
#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/bf16_softmax-inl.h"
#include "kernels/cpu/bf16_tiles-inl.h"
#include "kernels/cpu/code_tiles-inl.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu {
namespace {

using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file

// Work space of one task beside its tiles.
struct Space {
  int64_t num_rows = 0;
  int64_t num_key_pairs = 0;
  int64_t value_dim = 0;  // in whole vectors of f32
  RowSums rows;
  // The pairs of kTileRows rows side by side: [tiles of rows, num_key_pairs, kTileRows, 2].
  BFloat16* queries = nullptr;

  static int64_t num_floats(const RaggedAttentionArgs& args, const AttentionTask& task) {
    return round_up(cpu::num_rows(args, task), kTileRows) * ceil_div(args.q.shape[2], int64_t{2});
  }
  Space(const RaggedAttentionArgs& args,
        const AttentionTask& task,
        const RowSums& sums,
        float* memory)
      : num_rows(cpu::num_rows(args, task)),
        num_key_pairs(ceil_div(args.q.shape[2], int64_t{2})),
        value_dim(sums.stride),
        rows(sums),
        queries(reinterpret_cast<BFloat16*>(memory)) {}
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
  update_softmax<kRows>(args, tile, masks, begin, row, space.rows, scores, weights);
  int64_t column = 0;
  for (; column + 4 * kLanes <= space.value_dim; column += 4 * kLanes) {
    add_values<kRows, 4>(space, tile, row, column, fetcher, weights);
  }
  for (; column < space.value_dim; column += kLanes) {
    add_values<kRows, 1>(space, tile, row, column, fetcher, weights);
  }
}

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

template <typename Tiles>
void meet_keys(const RaggedAttentionArgs& args, const AttentionTask& task, TaskRows& rows) {
  thread_local Scratch scratch;
  // Tiles first: they want whole cache lines.
  const int64_t tile_floats = round_up(Tiles::memory_size(args), kPairs) / 2;
  float* memory = scratch.floats(static_cast<size_t>(tile_floats + Space::num_floats(args, task)));
  Space space(args, task, rows.open(), memory + tile_floats);
  load_queries(args, task, space);
  // A call of fetch() for each pair that rows are multiplied with, or nearly.
  const int64_t num_fetches =
      ceil_div(space.num_rows, kTileRows) *
      (space.num_key_pairs + kTilePairs * ceil_div(space.value_dim, 4 * kLanes));
  for_each_tile<Tiles>(args,
                       task,
                       rows,
                       num_fetches,
                       reinterpret_cast<BFloat16*>(memory),
                       [&](const Tile& tile, int64_t begin, Fetcher& fetcher) {
                         meet_tile(args, task, space, tile, begin, fetcher);
                       });
}

}  // namespace

void ragged_attention_bf16(const RaggedAttentionArgs& args, ThreadPool& pool) {
  const auto meet = [](auto tiles) { return &meet_keys<typename decltype(tiles)::type>; };
  run_attention(args, kernel_of(args, choose_tiles(args, meet)), pool);
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AVX512

namespace lamina::kernels::cpu {

bool reads_pairs(const KvShape& shape) {
  const bool is_read = shape.dtype == DType::kBF16 || is_quantized(shape.dtype);
  // A tile of AMX takes 16 pairs of a key at once.
  const bool fits =
      uses_amx() ? shape.key_dim % avx512::kPairs == 0 : uses_bf16_dot() && shape.key_dim % 2 == 0;
  return fits && is_read && shape.q_dtype == DType::kBF16 &&
         shape.block_size % avx512::kLanes == 0 && shape.value_dim > 0 &&
         shape.value_dim % avx512::kLanes == 0;
}

}  // namespace lamina::kernels::cpu
