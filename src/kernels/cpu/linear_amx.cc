// The product of linear.cc in tiles of AMX, with the same promise: an element of `out` is one sum
// in one tile register, to which pairs are added in ascending k; what the tile's other rows and
// columns are does not matter to it. Weights are the left factor, 16 rows by 32 columns straight
// from where they lie; x, the right factor, is laid out in pairs once a call. One arithmetic serves
// all numbers of tokens: of one token 15 columns of zeros are multiplied too, and memory is still
// the bound (docs/adr/0022).
#include "kernels/cpu/linear_amx.h"

#include "base/checked_math.h"
#include "kernels/cpu/amx-inl.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AMX
namespace lamina::kernels::cpu {
namespace {

using namespace amx;     // NOLINT(google-build-using-namespace): the helpers of this file
using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file

constexpr int64_t kPanelTokens = 16;
constexpr int64_t kRowUnit = 2 * kTileHeight;  // weight rows, met together
// Packed x that stays in the second-level cache while the weights pass by.
constexpr int64_t kTokenBlockBytes = 1280 * 1024;

// What every thread of one call shares.
struct Job {
  const LinearArgs& args;
  int64_t depth = 0;  // of x and weights, in whole tiles
  BFloat16* packed =
      nullptr;  // x: [panels of 16 tokens][depth / 2][16][2], zeros where there is none

  [[nodiscard]] const BFloat16* panel(int64_t token) const { return packed + token * depth; }
};

// Panels [begin, end) of x.
void pack_panels(const Job& job, int64_t begin, int64_t end) {
  const TensorView& x = job.args.x;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t token = panel * kPanelTokens;
    const int64_t count = std::min(kPanelTokens, x.shape[0] - token);
    BFloat16* to = job.packed + token * job.depth;
    for (int64_t k = 0; k < job.depth; k += kPairs, to += kPairs * kPanelTokens) {
      const __mmask32 mask = first_pairs(x.shape[1] - k);
      __m512i pairs[kPanelTokens];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kPanelTokens; ++i) {
        pairs[i] =
            i < count ? load_bf16(mask, x.row<BFloat16>(token + i) + k) : _mm512_setzero_si512();
      }
      transpose_16x16(pairs);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kPanelTokens; ++i) _mm512_store_si512(to + i * kPairs, pairs[i]);
    }
  }
}

// Weight rows [row, row + height), height at most kRowUnit, and their last columns where those are
// no whole tile.
struct Rows {
  int64_t row = 0;
  int64_t height = 0;
  alignas(64) BFloat16 tail[kRowUnit][kTileDepth];

  Rows(const TensorView& weight, int64_t first, int64_t count) : row(first), height(count) {
    const int64_t k = weight.shape[1] / kTileDepth * kTileDepth;
    if (k == weight.shape[1]) return;
    const __mmask32 mask = first_pairs(weight.shape[1] - k);
    for (int64_t i = 0; i < height; ++i) {
      _mm512_store_si512(tail[i], load_bf16(mask, weight.row<BFloat16>(row + i) + k));
    }
    publish_to_tiles();
  }
};

// Sums of 32 rows and up to 32 tokens: [token panel][row tile][row of the tile][token].
using Sums = float[2][2][kTileHeight][kPanelTokens];

template <int kRowTiles, int kPanels>
HWY_INLINE void multiply_step(const BFloat16* weights,
                              int64_t stride_bytes,
                              const BFloat16* x,
                              int64_t panel_size) {
  _tile_loadd(6, x, 64);
  _tile_loadd(4, weights, stride_bytes);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kPanels == 2) {
    _tile_loadd(7, x + panel_size, 64);
    _tile_dpbf16ps(2, 4, 7);
  }
  if constexpr (kRowTiles == 2) {
    _tile_loadd(5, weights + kTileHeight * stride_bytes / 2, stride_bytes);
    _tile_dpbf16ps(1, 5, 6);
    if constexpr (kPanels == 2) _tile_dpbf16ps(3, 5, 7);
  }
}

// Fetches column k of `count` rows from `fetched` on.
HWY_INLINE void fetch_rows(const BFloat16* fetched, int64_t stride, int64_t count, int64_t k) {
  for (int64_t i = 0; i < count; ++i) _mm_prefetch(fetched + i * stride + k, _MM_HINT_T1);
}

// sums = rows . tokens of kPanels panels at x. Fetches the next rows meanwhile: num_fetched of
// them, from `fetched` on.
template <int kRowTiles, int kPanels>
HWY_NOINLINE void multiply_tiles(const Job& job,
                                 const Rows& rows,
                                 const BFloat16* x,
                                 const BFloat16* fetched,
                                 int64_t num_fetched,
                                 Sums& sums) {
  const int64_t columns = job.args.weight.shape[1];
  const int64_t panel_size = kPanelTokens * job.depth;
  const BFloat16* weights = job.args.weight.row<BFloat16>(rows.row);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  int64_t k = 0;
  for (; k + kTileDepth <= columns; k += kTileDepth, x += kTileDepth * kPanelTokens) {
    fetch_rows(fetched, columns, num_fetched, k);
    multiply_step<kRowTiles, kPanels>(weights + k, 2 * columns, x, panel_size);
  }
  if (k < columns) {
    multiply_step<kRowTiles, kPanels>(rows.tail[0], 2 * kTileDepth, x, panel_size);
  }
  _tile_stored(0, sums[0][0], 64);
  if constexpr (kRowTiles == 2) _tile_stored(1, sums[0][1], 64);
  if constexpr (kPanels == 2) _tile_stored(2, sums[1][0], 64);
  if constexpr (kRowTiles == 2 && kPanels == 2) _tile_stored(3, sums[1][1], 64);
}

HWY_INLINE __m512 load_bias(const TensorView& bias, int64_t row, int64_t count) {
  if (bias.empty()) return _mm512_setzero_ps();
  const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(count), bias.row<BFloat16>(row));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Rows [row, row + height) of a tile of sums become columns of out, for `count` tokens.
template <typename Out>
void store_tile(const LinearArgs& args,
                const float (&sums)[kTileHeight][kPanelTokens],
                int64_t row,
                int64_t height,
                int64_t token,
                int64_t count) {
  __m512i lanes[kTileHeight];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kTileHeight; ++i) lanes[i] = _mm512_load_si512(sums[i]);
  transpose_16x16(lanes);
  const __m512 bias = load_bias(args.bias, row, height);
  for (int64_t t = 0; t < count; ++t) {
    const __m512 sum = _mm512_add_ps(_mm512_castsi512_ps(lanes[t]), bias);
    store_upto(sum, args.out.row<Out>(token + t) + row, height);
  }
}

// `rows` meet tokens [token, token_end), two panels at a time.
template <typename Out, int kRowTiles>
void multiply_rows(const Job& job, const Rows& rows, int64_t token, int64_t token_end) {
  alignas(64) Sums sums;
  const TensorView& weight = job.args.weight;
  // The next rows are fetched by all panels together, each its share of them.
  const int64_t num_steps = ceil_div(token_end - token, 2 * kPanelTokens);
  const int64_t next = rows.row + rows.height;
  const int64_t num_next = std::min(kRowUnit, weight.shape[0] - next);
  for (int64_t step = 0; token < token_end; ++step, token += 2 * kPanelTokens) {
    const int64_t first = num_next * step / num_steps;
    const int64_t num_fetched = num_next * (step + 1) / num_steps - first;
    const BFloat16* fetched =
        weight.row<BFloat16>(rows.row) + (rows.height + first) * weight.shape[1];
    const int64_t count = std::min(2 * kPanelTokens, token_end - token);
    if (count <= kPanelTokens) {
      multiply_tiles<kRowTiles, 1>(job, rows, job.panel(token), fetched, num_fetched, sums);
    } else {
      multiply_tiles<kRowTiles, 2>(job, rows, job.panel(token), fetched, num_fetched, sums);
    }
    for (int64_t panel = 0; panel * kPanelTokens < count; ++panel) {
      for (int64_t tile = 0; tile < kRowTiles; ++tile) {
        store_tile<Out>(job.args,
                        sums[panel][tile],
                        rows.row + tile * kTileHeight,
                        std::min(kTileHeight, rows.height - tile * kTileHeight),
                        token + panel * kPanelTokens,
                        std::min(kPanelTokens, count - panel * kPanelTokens));
      }
    }
  }
}

template <typename Out>
void multiply_range(const Job& job, int64_t begin, int64_t end) {
  const LinearArgs& args = job.args;
  const int64_t row_bytes = std::max<int64_t>(job.depth, 1) * 2;
  const int64_t most_tokens = std::max(kTokenBlockBytes / row_bytes, 2 * kPanelTokens);
  const int64_t num_blocks = ceil_div(args.x.shape[0], most_tokens);
  const int64_t block_tokens =
      round_up(ceil_div(args.x.shape[0], std::max<int64_t>(num_blocks, 1)), 2 * kPanelTokens);
  for (int64_t token = 0; token < args.x.shape[0]; token += block_tokens) {
    const int64_t token_end = std::min(token + block_tokens, args.x.shape[0]);
    const TileScope tiles(kTileHeight);
    int64_t row = begin;
    for (; row + kRowUnit <= end; row += kRowUnit) {
      multiply_rows<Out, 2>(job, Rows(args.weight, row, kRowUnit), token, token_end);
    }
    for (; row < end; row += kTileHeight) {
      const int64_t height = std::min(kTileHeight, end - row);
      TileScope::configure(height);
      multiply_rows<Out, 1>(job, Rows(args.weight, row, height), token, token_end);
    }
  }
}

// With room for x, in the calling thread's scratch.
Job make_job(const LinearArgs& args) {
  thread_local Scratch scratch;
  Job job{args};
  job.depth = round_up(args.x.shape[1], kTileDepth);
  const int64_t size = round_up(args.x.shape[0], kPanelTokens) * job.depth;
  job.packed = reinterpret_cast<BFloat16*>(scratch.floats(static_cast<size_t>(size / 2)));
  return job;
}

void multiply_rows_of(const Job& job, int64_t begin, int64_t end) {
  if (job.args.out.dtype == DType::kF32) {
    multiply_range<float>(job, begin, end);
  } else {
    multiply_range<BFloat16>(job, begin, end);
  }
}

}  // namespace

void linear_part_amx(const LinearArgs& args, int64_t begin, int64_t end) {
  const Job job = make_job(args);
  pack_panels(job, 0, ceil_div(args.x.shape[0], kPanelTokens));
  publish_to_tiles();
  multiply_rows_of(job, begin, end);
}

void linear_amx(const LinearArgs& args, ThreadPool& pool) {
  constexpr int64_t kMinWork = 256 * 1024;  // products: microseconds, worth waking a thread for
  const Job job = make_job(args);
  pool.parallel_for(ceil_div(args.x.shape[0], kPanelTokens),
                    ceil_div(kMinWork / 16, std::max<int64_t>(kPanelTokens * job.depth, 1)),
                    [&job](int64_t begin, int64_t end) { pack_panels(job, begin, end); });
  const int64_t num_rows = args.weight.shape[0];
  // Few tokens wait for memory: cut finer, so that all threads read.
  const int64_t unit = args.x.shape[0] <= 2 * kPanelTokens ? kTileHeight : kRowUnit;
  const int64_t unit_work = unit * round_up(args.x.shape[0], kPanelTokens) * job.depth;
  pool.parallel_for(ceil_div(num_rows, unit),
                    ceil_div(kMinWork, std::max<int64_t>(unit_work, 1)),
                    [&job, num_rows, unit](int64_t begin, int64_t end) {
                      multiply_rows_of(job, begin * unit, std::min(end * unit, num_rows));
                    });
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AMX
