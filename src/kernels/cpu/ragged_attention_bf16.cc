// The online softmax of ragged_attention.cc in pairs of bf16, with the same promises. A vector
// holds one pair of 16 keys (pairs along the head dimension) or of 16 elements of a value (pairs of
// keys); all rows of a task meet each tile of 64 keys, four at a time, by broadcasting their own
// pairs. Caches of KvOrder::kPairs are read as they lie; of others each tile is first laid out in
// panels of that order. While a tile is met, the next is fetched.
//   A row sees keys through a mask: others count as scores of minus infinity, and values that
// nobody may see as zeros, so a row's bits do not depend on which rows are met beside it.
#include "kernels/cpu/ragged_attention_bf16.h"

#include "base/checked_math.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/bf16_softmax-inl.h"
#include "kernels/cpu/bf16_tiles-inl.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu {
namespace {

using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file

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
  const BFloat16* queries = space.queries + row * space.key_dim;
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
      const __m512i query = broadcast_pair(queries + r * space.key_dim + 2 * k);
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

// sums = sums * shrink + weights . values, over kVectors vectors of the values from `column` on.
template <int kRows, int kVectors>
HWY_INLINE void add_values(const Space& space,
                           const Tile& tile,
                           int64_t row,
                           int64_t column,
                           Fetcher& fetcher,
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
  for (int64_t pair = 0; pair < kTilePairs; ++pair) {
    fetcher.fetch();
    const BFloat16* values = tile.values[static_cast<size_t>(pair)] + 2 * column;
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
  alignas(64) BFloat16 weights[kTileRows][kTileKeys];
  float shrinks[kTileRows];
  score_keys<kRows>(space, tile, row, fetcher, scores);
  update_softmax<kRows>(args, masks, begin, scores, space.rows.states + row, weights, shrinks);
  int64_t column = 0;
  for (; column + 4 * kLanes <= space.value_dim; column += 4 * kLanes) {
    add_values<kRows, 4>(space, tile, row, column, fetcher, weights, shrinks);
  }
  for (; column < space.value_dim; column += kLanes) {
    add_values<kRows, 1>(space, tile, row, column, fetcher, weights, shrinks);
  }
}

// All rows of a task meet the tile from position `begin` on.
void meet_tile(const RaggedAttentionArgs& args,
               const AttentionTask& task,
               Space& space,
               const Tile& tile,
               int64_t begin,
               Fetcher& fetcher) {
  const int64_t count = num_rows(args, task);
  for (int64_t row = 0; row < count; row += kTileRows) {
    const int64_t height = std::min(kTileRows, count - row);
    RowMasks masks;
    if (!find_masks(args, task, tile.held, begin, row, height, masks)) continue;
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
      ceil_div(num_rows(args, task), kTileRows) *
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
  float* memory = scratch.floats(
      static_cast<size_t>(tile_floats + Space::num_floats(args, num_rows(args, task))));
  Space space(args, num_rows(args, task), memory + tile_floats);
  load_queries(args, task, space);
  start_rows(args, task, space.rows);
  convert_sinks(args, task, space);
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
    if (args.order == KvOrder::kPairs) {
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
  // A tile of AMX takes 16 pairs of a key at once.
  const bool fits =
      uses_amx() ? shape.key_dim % avx512::kPairs == 0 : uses_bf16_dot() && shape.key_dim % 2 == 0;
  return fits && shape.dtype == DType::kBF16 && shape.q_dtype == DType::kBF16 &&
         shape.block_size % avx512::kLanes == 0 && shape.value_dim > 0 &&
         shape.value_dim % avx512::kLanes == 0;
}

}  // namespace lamina::kernels::cpu
