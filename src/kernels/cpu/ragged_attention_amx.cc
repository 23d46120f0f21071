// The attention of ragged_attention_bf16.cc in tiles of AMX, with the same promises: its tiles of
// 64 keys, its masks and its softmax. 16 rows of queries, the left factor, meet 16 keys at a time,
// and their softmax weights 16 elements of the values: pairs in a cache of KvOrder::kPairs are the
// right factor as they lie, but that 32 values may lie in several blocks and are then gathered.
#include "kernels/cpu/ragged_attention_amx.h"

#include "base/checked_math.h"
#include "kernels/cpu/amx-inl.h"
#include "kernels/cpu/attention_run.h"
#include "kernels/cpu/bf16_softmax-inl.h"
#include "kernels/cpu/bf16_tiles-inl.h"
#include "kernels/cpu/code_tiles-inl.h"
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

// Work space of one task beside its tiles. Rows are in whole tiles: those past the last one see
// nothing, and nobody reads what becomes of them.
struct Space {
  int64_t num_rows = 0;
  int64_t key_dim = 0;  // in whole tiles
  RowSums rows;
  BFloat16* queries = nullptr;  // [rows, key_dim]

  static int64_t num_floats(const RaggedAttentionArgs& args, const AttentionTask& task) {
    return round_up(cpu::num_rows(args, task), kTileHeight) *
           round_up(args.q.shape[2], kTileDepth) / 2;
  }
  Space(const RaggedAttentionArgs& args,
        const AttentionTask& task,
        const RowSums& sums,
        float* memory)
      : num_rows(round_up(cpu::num_rows(args, task), kTileHeight)),
        key_dim(round_up(args.q.shape[2], kTileDepth)),
        rows(sums),
        queries(reinterpret_cast<BFloat16*>(memory)) {
    static_assert(RowSums::kRoom % kTileHeight == 0);
    rows.clear({cpu::num_rows(args, task), num_rows});
  }
};

// What 16 rows that are met together have of their own, four by four.
struct Meeting {
  static constexpr int64_t kParts = kTileHeight / kTileRows;
  alignas(64) float scores[kParts][kTileRows][kTileKeys];
  alignas(64) RowWeights weights[kParts][kTileRows];
  RowMasks masks[kParts];
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
  _tile_stored(0, meeting.scores[0][0], kScoreBytes);
  _tile_stored(1, meeting.scores[0][0] + kLanes, kScoreBytes);
  _tile_stored(2, meeting.scores[0][0] + 2 * kLanes, kScoreBytes);
  _tile_stored(3, meeting.scores[0][0] + 3 * kLanes, kScoreBytes);
}

// One tile register of sums; a macro, since registers have literal numbers.
#define LAMINA_ADD_VALUES(sum, column)                                   \
  _tile_loadd(sum, sums + (column), sum_bytes);                          \
  _tile_loadd(6, values.halves[0] + 2 * (column), 2 * values.stride[0]); \
  _tile_dpbf16ps(sum, 4, 6);                                             \
  fetcher.fetch();                                                       \
  _tile_loadd(7, values.halves[1] + 2 * (column), 2 * values.stride[1]); \
  _tile_dpbf16ps(sum, 5, 7);                                             \
  fetcher.fetch();                                                       \
  _tile_stored(sum, sums + (column), sum_bytes)

// sums = sums + weights . values, of 16 rows from `row` on.
void add_values(const Space& space,
                const Values& values,
                int64_t row,
                Fetcher& fetcher,
                const Meeting& meeting) {
  float* sums = space.rows.sums + row * space.rows.stride;
  const BFloat16* weights = reinterpret_cast<const BFloat16*>(meeting.weights);
  const auto sum_bytes = space.rows.stride * static_cast<int64_t>(sizeof(float));
  _tile_loadd(4, weights, 2 * kTileKeys);
  _tile_loadd(5, weights + kTileDepth, 2 * kTileKeys);
  int64_t column = 0;
  for (; column + 2 * kLanes <= space.rows.stride; column += 2 * kLanes) {
    LAMINA_ADD_VALUES(0, column);
    LAMINA_ADD_VALUES(1, column + kLanes);
  }
  if (column < space.rows.stride) {
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
  RowCursor cursor(args, task, tile.held, begin);
  const int64_t count = num_rows(args, task);
  for (int64_t row = 0; row < count; row += kTileHeight) {
    const int64_t num_parts = ceil_div(std::min(kTileHeight, count - row), kTileRows);
    bool is_met = false;
    for (int64_t i = 0; i < num_parts; ++i) {
      const int64_t height = std::min(kTileRows, count - row - i * kTileRows);
      meeting.masks[i] = RowMasks();
      is_met |= cursor.take(height, meeting.masks[i]);
    }
    if (!is_met) continue;
    score_keys(space, tile, row, fetcher, meeting);
    for (int64_t i = 0; i < num_parts; ++i) {
      update_softmax<kTileRows>(args,
                                tile,
                                meeting.masks[i],
                                begin,
                                row + i * kTileRows,
                                space.rows,
                                meeting.scores[i],
                                meeting.weights[i]);
    }
    publish_to_tiles();
    add_values(space, values, row, fetcher, meeting);
  }
}

// Rows of queries one after the other, zeros around them.
void load_queries(const RaggedAttentionArgs& args, const AttentionTask& task, const Space& space) {
  const int64_t head_dim = args.q.shape[2];
  BFloat16* to = space.queries;
  std::fill_n(to, space.num_rows * space.key_dim, BFloat16());
  for (int64_t t = task.begin; t < task.end; ++t) {
    const BFloat16* from = args.q.row<BFloat16>(t) + task.kv_head * group_size(args) * head_dim;
    for (int64_t g = 0; g < group_size(args); ++g, from += head_dim, to += space.key_dim) {
      std::copy_n(from, head_dim, to);
    }
  }
}

template <typename Tiles>
void meet_keys(const RaggedAttentionArgs& args, const AttentionTask& task, TaskRows& rows) {
  thread_local Scratch scratch;
  const int64_t count = num_rows(args, task);
  // What wants whole cache lines first.
  const int64_t value_floats = kTileKeys * round_up(value_dim(args), kLanes) / 2;
  const int64_t tile_floats = round_up(Tiles::memory_size(args), kPairs) / 2;
  float* memory = scratch.floats(
      static_cast<size_t>(value_floats + tile_floats + Space::num_floats(args, task)));
  const Space space(args, task, rows.open(), memory + value_floats + tile_floats);
  load_queries(args, task, space);
  const TileScope scope(std::min(kTileHeight, round_up(count, kTileRows)));
  const int64_t num_fetches =
      ceil_div(count, kTileHeight) * (space.key_dim + space.rows.stride) / 8;
  for_each_tile<Tiles>(args,
                       task,
                       rows,
                       num_fetches,
                       reinterpret_cast<BFloat16*>(memory + value_floats),
                       [&](const Tile& tile, int64_t begin, Fetcher& fetcher) {
                         const Values values = find_values(
                             tile, space.rows.stride, reinterpret_cast<BFloat16*>(memory));
                         meet_tile(args, task, space, tile, values, begin, fetcher);
                       });
}

}  // namespace

void ragged_attention_amx(const RaggedAttentionArgs& args, ThreadPool& pool) {
  const auto meet = [](auto tiles) { return &meet_keys<typename decltype(tiles)::type>; };
  run_attention(args, kernel_of(args, choose_tiles(args, meet)), pool);
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AMX
