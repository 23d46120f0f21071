// Products of bf16 with weights in panels of pairs: each lane sums a weight row, to which the
// products of a pair of columns are added in one instruction, in ascending order. x is laid out so
// that the pairs of a tile's tokens lie together, and each is broadcast to all lanes.
#include <algorithm>
#include <array>
#include <utility>

#include "base/checked_math.h"
#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/linear_packed.h"
#include "kernels/cpu/panel_rows-inl.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu {
using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file
}
#include "kernels/cpu/linear_panels-inl.h"

namespace lamina::kernels::cpu {
namespace {

// Sums of a tile, its weights and one pair of x fit the 32 registers: 14 tokens by two panels. 15
// or 16 tokens are quicker as one tile with one panel than in two tiles.
constexpr int64_t kTileTokens = 14;
constexpr int64_t kMaxTokens = 16;
// Fewer tokens wait for memory alone, and the processor's own prefetcher reads it faster
// undisturbed.
constexpr int kMinFetchingTokens = 5;

// sums [tokens][kTokenSums] of a tile. x [pairs of columns][tokens][2], from the block's first
// column on. While a tile meets `num_passes` pairs of columns, one line of each panel is fetched.
template <int kTokens>
HWY_NOINLINE void multiply_tile(const BFloat16* x, const PanelBlock& block, float* sums) {
  constexpr int kPanels = kTokens <= kTileTokens ? 2 : 1;
  __m512 kept[kPanels][kTokens];
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      kept[p][t] = block.column == 0 ? _mm512_setzero_ps()
                                     : _mm512_loadu_ps(sums + t * kTokenSums + p * kPanelRows);
    }
  }
  const int64_t num_pairs = block.num_columns / 2;
  const BFloat16* next = block.next + block.pass * num_pairs / block.num_passes * kPairs;
  for (int64_t begin = 0; begin < num_pairs; begin += block.num_passes, next += kPairs) {
    if constexpr (kTokens >= kMinFetchingTokens) {
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) _mm_prefetch(next + p * block.panel_stride, _MM_HINT_T1);
    }
    const int64_t end = std::min(begin + block.num_passes, num_pairs);
    for (int64_t pair = begin; pair < end; ++pair) {
      __m512i rows[kPanels];
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
        rows[p] = load_bf16(block.weights + p * block.panel_stride + pair * kPairs);
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const __m512i of_token = broadcast_pair(x + (pair * kTokens + t) * 2);
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) kept[p][t] = dot_pairs(kept[p][t], rows[p], of_token);
      }
    }
  }
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      _mm512_storeu_ps(sums + t * kTokenSums + p * kPanelRows, kept[p][t]);
    }
  }
}

using MultiplyTile = void (*)(const BFloat16*, const PanelBlock&, float*);

// By the number of tokens, from one on.
template <int... kCounts>
constexpr auto tiles_of(std::integer_sequence<int, kCounts...> /*counts*/) {
  return std::array<MultiplyTile, sizeof...(kCounts)>{multiply_tile<kCounts + 1>...};
}
constexpr auto kMultiplyTile = tiles_of(std::make_integer_sequence<int, kMaxTokens>());

class PairsKernel {
 public:
  // Weights of two panels, and as many that are fetched meanwhile, stay in the second-level cache.
  static constexpr int64_t kDepthBlock = 2048;
  struct Scope {};

  explicit PairsKernel(const PanelJob& job)
      : job_(job),
        num_tiles_(job.num_tokens() <= kMaxTokens ? 1 : ceil_div(job.num_tokens(), kTileTokens)) {}

  [[nodiscard]] int64_t num_panels() const {
    return num_tiles_ == 1 && job_.num_tokens() > kTileTokens ? 1 : 2;
  }
  [[nodiscard]] int64_t num_tiles() const { return num_tiles_; }
  // Tiles of about equal height.
  [[nodiscard]] int64_t tile_begin(int64_t tile) const {
    return job_.num_tokens() * tile / num_tiles_;
  }
  void multiply(int64_t tile, const PanelBlock& block, float* sums) const {
    const int64_t begin = tile_begin(tile);
    const int64_t height = tile_begin(tile + 1) - begin;
    const BFloat16* x = job_.x + begin * job_.weight().columns + block.column * height;
    kMultiplyTile[static_cast<size_t>(height - 1)](x, block, sums);
  }
  // Lays tiles [begin, end) out: [pairs of columns][tokens of the tile][2].
  void pack(int64_t begin, int64_t end) const {
    for (int64_t tile = begin; tile < end; ++tile) pack_tile(tile);
  }

 private:
  void pack_tile(int64_t tile) const {
    const TensorView& x = job_.args.x;
    const int64_t begin = tile_begin(tile);
    const int64_t height = tile_begin(tile + 1) - begin;
    BFloat16* to = job_.x + begin * x.shape[1];
    if (height == 1) {
      std::copy_n(x.row<BFloat16>(begin), x.shape[1], to);
      return;
    }
    for (int64_t k = 0; k < x.shape[1]; k += kPairs) {
      __m512i pairs[16];
#pragma GCC unroll 16
      for (int64_t t = 0; t < 16; ++t) {
        pairs[t] = t < height ? load_bf16(x.row<BFloat16>(begin + t) + k) : _mm512_setzero_si512();
      }
      transpose_16x16(pairs);
#pragma GCC unroll 16
      for (int64_t i = 0; i < 16; ++i, to += 2 * height) {
        _mm512_mask_storeu_epi32(to, first_lanes(height), pairs[i]);
      }
    }
  }

  const PanelJob& job_;
  int64_t num_tiles_;
};

}  // namespace

void linear_part_pairs(const LinearArgs& args, int64_t begin, int64_t end) {
  const PanelJob job = make_job(args, args.x.shape[0]);
  run_part(job, PairsKernel(job), begin, end);
}

void linear_pairs(const LinearArgs& args, ThreadPool& pool) {
  const PanelJob job = make_job(args, args.x.shape[0]);
  run_panels(job, PairsKernel(job), pool);
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AVX512
