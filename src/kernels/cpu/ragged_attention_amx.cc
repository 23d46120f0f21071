// The attention of ragged_attention_bf16.cc in tiles of AMX, with the same promises: its tiles of 64
// keys, its masks and its softmax. 16 rows of queries, the left factor, meet 16 keys at a time, and
// their softmax weights 16 elements of the values: pairs in a cache of KvOrder::kPairs are the right
// factor as they lie, but that 32 values may lie in several blocks and are then gathered.
#include "kernels/cpu/ragged_attention_amx.h"

#include "base/checked_math.h"
#include "kernels/cpu/amx-inl.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/bf16_softmax-inl.h"
#include "kernels/cpu/bf16_tiles-inl.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AMX
namespace lamina::kernels::cpu {
namespace {

using namespace amx;     // NOLINT(google-build-using-namespace): the helpers of this file
using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file

constexpr int64_t kHalfPairs = kTilePairs / 2;  // pairs of keys of a right factor

// The values of a tile as two right factors.
struct Values {
  const BFloat16* halves[2] = {};  // each [16 pairs][stride elements]
  int64_t stride[2] = {};
};

// What up to 16 rows that are met together have of their own.
struct Meeting {
  alignas(64) float scores[kTileHeight][kTileKeys];
  alignas(64) BFloat16 weights[kTileHeight][kTileKeys];
  float shrinks[kTileHeight];
};

// Finds halves that lie evenly; gathers others in `memory`, [kTilePairs, width, 2].
Values find_values(const Tile& tile, int64_t width, BFloat16* memory) {
  Values found;
  for (int64_t half = 0; half < 2; ++half) {
    const BFloat16* const* pairs = tile.values.data() + half * kHalfPairs;
    const int64_t stride = pairs[1] - pairs[0];
    bool is_even = true;
    for (int64_t i = 2; i < kHalfPairs; ++i) is_even &= pairs[i] == pairs[0] + i * stride;
    found.halves[half] = is_even ? pairs[0] : memory + half * kHalfPairs * 2 * width;
    found.stride[half] = is_even ? stride : 2 * width;
    if (is_even) continue;
    BFloat16* to = memory + half * kHalfPairs * 2 * width;
    for (int64_t i = 0; i < kHalfPairs; ++i) {
      for (int64_t k = 0; k < 2 * width; k += kPairs, to += kPairs) {
        _mm512_store_si512(to, load_bf16(pairs[i] + k));
      }
    }
  }
  publish_to_tiles();
  return found;
}

// scores[r] = query row r . keys of the tile, of 16 rows from `row` on.
void score_keys(
    const Space& space, const Tile& tile, int64_t row, Fetcher& fetcher, Meeting& meeting) {
  const BFloat16* queries = space.queries + row * space.key_dim;
  const int64_t query_bytes = 2 * space.key_dim;
  const int64_t key_bytes = 2 * tile.key_stride;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < space.key_dim; k += kTileDepth) {
    const int64_t offset = k / 2 * tile.key_stride;
    _tile_loadd(4, queries + k, query_bytes);
    _tile_loadd(6, tile.keys[0] + offset, key_bytes);
    _tile_dpbf16ps(0, 4, 6);
    fetcher.fetch();
    _tile_loadd(7, tile.keys[1] + offset, key_bytes);
    _tile_dpbf16ps(1, 4, 7);
    fetcher.fetch();
    _tile_loadd(6, tile.keys[2] + offset, key_bytes);
    _tile_dpbf16ps(2, 4, 6);
    fetcher.fetch();
    _tile_loadd(7, tile.keys[3] + offset, key_bytes);
    _tile_dpbf16ps(3, 4, 7);
    fetcher.fetch();
  }
  constexpr int64_t kScoreBytes = kTileKeys * sizeof(float);
  _tile_stored(0, meeting.scores[0], kScoreBytes);
  _tile_stored(1, meeting.scores[0] + kLanes, kScoreBytes);
  _tile_stored(2, meeting.scores[0] + 2 * kLanes, kScoreBytes);
  _tile_stored(3, meeting.scores[0] + 3 * kLanes, kScoreBytes);
}

// Softmax of the first `height` of 16 rows. Weights of others may be anything: nobody reads their
// sums.
void weigh_rows(const RaggedAttentionArgs& args,
                const AttentionTask& task,
                const Space& space,
                uint64_t held,
                int64_t begin,
                int64_t row,
                int64_t height,
                Meeting& meeting) {
  for (int64_t r = 0; r < height; r += kTileRows) {
    RowMasks masks;  // what is past the height sees nothing
    find_masks(args, task, held, begin, row + r, std::min(kTileRows, height - r), masks);
    update_softmax<kTileRows>(args,
                              masks,
                              begin,
                              meeting.scores + r,
                              space.rows.states + row + r,
                              meeting.weights + r,
                              meeting.shrinks + r);
  }
}

void shrink_sums(const Space& space, int64_t row, int64_t height, const Meeting& meeting) {
  for (int64_t r = 0; r < height; ++r) {
    if (meeting.shrinks[r] == 1.0F) continue;
    float* sums = space.rows.sums + (row + r) * space.value_dim;
    const __m512 factor = _mm512_set1_ps(meeting.shrinks[r]);
    for (int64_t i = 0; i < space.value_dim; i += kLanes) {
      _mm512_storeu_ps(sums + i, _mm512_mul_ps(_mm512_loadu_ps(sums + i), factor));
    }
  }
  publish_to_tiles();
}

// One tile register of sums; a macro, since registers have literal numbers.
#define LAMINA_ADD_VALUES(sum, column)                                                \
  _tile_loadd(sum, sums + (column), sum_bytes);                                       \
  _tile_loadd(6, values.halves[0] + 2 * (column), 2 * values.stride[0]);              \
  _tile_dpbf16ps(sum, 4, 6);                                                          \
  fetcher.fetch();                                                                    \
  _tile_loadd(7, values.halves[1] + 2 * (column), 2 * values.stride[1]);              \
  _tile_dpbf16ps(sum, 5, 7);                                                          \
  fetcher.fetch();                                                                    \
  _tile_stored(sum, sums + (column), sum_bytes)

// sums = sums + weights . values, of 16 rows from `row` on.
void add_values(const Space& space,
                const Values& values,
                int64_t row,
                Fetcher& fetcher,
                const Meeting& meeting) {
  float* sums = space.rows.sums + row * space.value_dim;
  const auto sum_bytes = space.value_dim * static_cast<int64_t>(sizeof(float));
  _tile_loadd(4, meeting.weights[0], 2 * kTileKeys);
  _tile_loadd(5, meeting.weights[0] + kTileDepth, 2 * kTileKeys);
  int64_t column = 0;
  for (; column + 2 * kLanes <= space.value_dim; column += 2 * kLanes) {
    LAMINA_ADD_VALUES(0, column);
    LAMINA_ADD_VALUES(1, column + kLanes);
  }
  if (column < space.value_dim) {
    LAMINA_ADD_VALUES(2, column);
  }
}
#undef LAMINA_ADD_VALUES

// All rows of a task meet the tile from position `begin` on.
void meet_tile(const RaggedAttentionArgs& args,
               const AttentionTask& task,
               const Space& space,
               const Tile& tile,
               const Values& values,
               int64_t begin,
               Fetcher& fetcher) {
  Meeting meeting;
  const int64_t count = num_rows(args, task);
  for (int64_t row = 0; row < count; row += kTileHeight) {
    const int64_t height = std::min(kTileHeight, count - row);
    score_keys(space, tile, row, fetcher, meeting);
    weigh_rows(args, task, space, tile.held, begin, row, height, meeting);
    shrink_sums(space, row, height, meeting);
    add_values(space, values, row, fetcher, meeting);
  }
}

template <typename Tiles>
void meet_tiles(const RaggedAttentionArgs& args,
                const AttentionTask& task,
                const Space& space,
                BFloat16* tile_memory,
                BFloat16* value_memory) {
  const KeyRange range = key_range(args, task);
  Tiles tiles({args, task, range}, tile_memory);
  const int64_t num_groups = ceil_div(num_rows(args, task), kTileHeight);
  const int64_t num_fetches = Tiles::kFetches + num_groups * (space.key_dim + space.value_dim) / 8;
  const int64_t first = range.begin / kTileKeys * kTileKeys;
  tiles.locate(first);
  for (int64_t begin = first; begin < range.end; begin += kTileKeys) {
    tiles.advance();
    tiles.locate(begin + kTileKeys);
    if (tiles.held() == 0) continue;
    Fetcher fetcher;
    tiles.add_next(fetcher);
    fetcher.plan(num_fetches);
    const Tile& tile = tiles.take(fetcher);
    const Values values = find_values(tile, space.value_dim, value_memory);
    meet_tile(args, task, space, tile, values, begin, fetcher);
  }
}

template <typename Tiles>
void run_task(const RaggedAttentionArgs& args, const AttentionTask& task) {
  thread_local Scratch scratch;
  const int64_t count = num_rows(args, task);
  const int64_t padded = round_up(count, kTileHeight);  // tiles are whole
  const int64_t width = round_up(value_dim(args), kLanes);
  // What wants whole cache lines first.
  const int64_t value_floats = kTileKeys * width / 2;
  const int64_t tile_floats = round_up(Tiles::memory_size(args), kPairs) / 2;
  float* memory = scratch.floats(
      static_cast<size_t>(value_floats + tile_floats + Space::num_floats(args, padded)));
  Space space(args, padded, memory + value_floats + tile_floats);
  load_queries(args, task, space);
  std::fill(space.queries + count * space.key_dim,
            space.queries + padded * space.key_dim,
            BFloat16());
  start_rows(args, task, space.rows);
  std::fill(space.rows.sums + count * width, space.rows.sums + padded * width, 0.0F);
  std::fill(space.rows.states + count, space.rows.states + padded, RowState());
  convert_sinks(args, task, space);
  {
    const TileScope scope(std::min(kTileHeight, round_up(count, kTileRows)));
    meet_tiles<Tiles>(args,
                      task,
                      space,
                      reinterpret_cast<BFloat16*>(memory + value_floats),
                      reinterpret_cast<BFloat16*>(memory));
  }
  if (args.phase == AttentionPhase::kCached) return save_rows(args, task, space.rows);
  if (args.out.dtype == DType::kF32) {
    store_rows<float>(args, task, space);
  } else {
    store_rows<BFloat16>(args, task, space);
  }
}

}  // namespace

void ragged_attention_amx(const RaggedAttentionArgs& args, ThreadPool& pool) {
  for_each_attention_task(args, pool, [&args](const AttentionTask& task) {
    if (args.order == KvOrder::kPairs) {
      run_task<PairTiles>(args, task);
    } else {
      run_task<RowTiles>(args, task);
    }
  });
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AMX
