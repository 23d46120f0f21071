// Products of bf16 with weights in panels of pairs, in tiles of AMX: 16 tokens of x, the left
// factor, meet blocks of panels, which are right factors as they lie. An element of `out` is one
// sum in one tile register, to which pairs are added in ascending order; what the tile's other rows
// and columns are does not matter to it. One arithmetic serves all numbers of tokens: beside one
// token 15 rows of zeros are multiplied too, and memory is still the bound (docs/adr/0022).
#include <algorithm>

#include "base/checked_math.h"
#include "kernels/cpu/amx-inl.h"
#include "kernels/cpu/linear_packed.h"
#include "kernels/cpu/panel_rows-inl.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AMX
namespace lamina::kernels::cpu {
using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file
}
#include "kernels/cpu/linear_panels-inl.h"

namespace lamina::kernels::cpu {
namespace {

using namespace amx;  // NOLINT(google-build-using-namespace): the helpers of this file

constexpr int64_t kTokenTile = kTileHeight;
constexpr int64_t kTileElements = kTokenTile * kTileDepth;  // of x or of a block of a panel
constexpr int64_t kTileBytes = 64;                          // of a row of them
constexpr int64_t kSumBytes = kTokenSums * static_cast<int64_t>(sizeof(float));

// sums of 16 or 32 tokens. x [token tiles, x_stride elements apart][blocks of columns][16][32].
template <int kTokenTiles>
HWY_NOINLINE void multiply_tile(const BFloat16* x,
                                int64_t x_stride,
                                const PanelBlock& block,
                                float* sums) {
  float* other_sums = sums + kTokenTile * kTokenSums;
  if (block.column == 0) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, kSumBytes);
    _tile_loadd(1, sums + kPanelRows, kSumBytes);
    if constexpr (kTokenTiles == 2) {
      _tile_loadd(2, other_sums, kSumBytes);
      _tile_loadd(3, other_sums + kPanelRows, kSumBytes);
    }
  }
  const BFloat16* weights = block.weights;
  const int64_t num_steps = block.num_columns / kTileDepth;
  const int64_t num_fetched = ceil_div(kTileElements / kPairs, block.num_passes);
  const BFloat16* next = block.next + block.pass * num_steps * num_fetched * kPairs;
  for (int64_t step = 0; step < num_steps; ++step, x += kTileElements, weights += kTileElements) {
    for (int64_t i = 0; i < num_fetched; ++i, next += kPairs) {
      _mm_prefetch(next, _MM_HINT_T1);
      _mm_prefetch(next + block.panel_stride, _MM_HINT_T1);
    }
    _tile_loadd(4, x, kTileBytes);
    _tile_loadd(6, weights, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, weights + block.panel_stride, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTokenTiles == 2) {
      _tile_loadd(5, x + x_stride, kTileBytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + kPanelRows, kSumBytes);
  if constexpr (kTokenTiles == 2) {
    _tile_stored(2, other_sums, kSumBytes);
    _tile_stored(3, other_sums + kPanelRows, kSumBytes);
  }
}

class AmxKernel {
 public:
  static constexpr int64_t kDepthBlock = 2048;
  static constexpr int64_t kTileTokens = 2 * kTokenTile;
  struct Scope {
    TileScope tiles{kTileHeight};
  };

  explicit AmxKernel(const PanelJob& job) : job_(job) {}

  [[nodiscard]] static int64_t num_panels() { return kMaxPanels; }
  [[nodiscard]] int64_t num_tiles() const { return ceil_div(job_.num_tokens(), kTileTokens); }
  [[nodiscard]] static int64_t tile_begin(int64_t tile) { return tile * kTileTokens; }
  void multiply(int64_t tile, const PanelBlock& block, float* sums) const {
    const int64_t columns = job_.weight().columns;
    const int64_t begin = tile_begin(tile);
    const BFloat16* x = job_.x + begin * columns + block.column * kTokenTile;
    publish_to_tiles();
    if (job_.num_tokens() - begin <= kTokenTile) {
      multiply_tile<1>(x, 0, block, sums);
    } else {
      multiply_tile<2>(x, kTokenTile * columns, block, sums);
    }
    publish_to_tiles();
  }
  // Lays tiles [begin, end) out: [token tiles][blocks of columns][16][32], zeros past the last
  // token.
  void pack(int64_t begin, int64_t end) const {
    const TensorView& x = job_.args.x;
    const int64_t token_end = round_up(std::min(tile_begin(end), x.shape[0]), kTokenTile);
    for (int64_t token = tile_begin(begin); token < token_end; ++token) {
      BFloat16* to =
          job_.x + token / kTokenTile * kTokenTile * x.shape[1] + token % kTokenTile * kTileDepth;
      for (int64_t k = 0; k < x.shape[1]; k += kTileDepth, to += kTileElements) {
        _mm512_storeu_si512(
            to,
            token < x.shape[0] ? load_bf16(x.row<BFloat16>(token) + k) : _mm512_setzero_si512());
      }
    }
  }

 private:
  const PanelJob& job_;
};

int64_t packed_tokens(const LinearArgs& args) {
  return round_up(args.x.shape[0], kTokenTile);
}

}  // namespace

void linear_part_amx(const LinearArgs& args, int64_t begin, int64_t end) {
  const PanelJob job = make_job(args, packed_tokens(args));
  run_part(job, AmxKernel(job), begin, end);
}

void linear_amx(const LinearArgs& args, ThreadPool& pool) {
  const PanelJob job = make_job(args, packed_tokens(args));
  run_panels(job, AmxKernel(job), pool);
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AMX
