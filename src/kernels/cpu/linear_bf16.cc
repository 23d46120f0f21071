// The product of linear.cc in pairs of bf16, with the same promise: an element of `out` has one
// vector of sums, to which pairs are added in ascending k, and whose lanes are added in one order.
// Weights and tokens are used as they lie in memory (docs/adr/0019 says what packing would gain).
#include "kernels/cpu/linear_bf16.h"

#include "base/checked_math.h"
#include "kernels/cpu/avx512-inl.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu {
namespace {

using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file

// Accumulators of a tile, its weights and one vector of x fit the 32 registers.
constexpr int64_t kTileTokens = 6;
constexpr int64_t kRowUnit = 8;  // weight rows; threads are cut at multiples of it
// Tokens whose x stays in the second-level cache while the weights pass by.
constexpr int64_t kTokenBlockBytes = 384 * 1024;
// Weights that stay there while all these tokens meet them; as many are fetched meanwhile.
constexpr int64_t kRowBlockBytes = 128 * 1024;

// Rows of the weights that a tile meets, and some of those that the next columns will need, which
// it fetches meanwhile: each tile of the columns some, so that memory is read while all compute.
template <int kColumns, int kFetched>
struct WeightRows {
  const BFloat16* rows[kColumns];
  const BFloat16* fetched[kFetched > 0 ? kFetched : 1];
};

template <int kTokens, int kColumns>
HWY_INLINE void multiply_step(const BFloat16* x,
                              int64_t x_stride,
                              const __m512i (&weights)[kColumns],
                              __mmask32 mask,
                              __m512 (&sums)[kTokens][kColumns]) {
#pragma GCC unroll 8
  for (int m = 0; m < kTokens; ++m) {
    const __m512i of_token = load_bf16(mask, x + m * x_stride);
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; ++n) sums[m][n] = dot_pairs(sums[m][n], of_token, weights[n]);
  }
}

template <int kTokens, int kColumns, int kFetched>
HWY_INLINE void multiply_tile(const BFloat16* x,
                              int64_t x_stride,
                              const WeightRows<kColumns, kFetched>& weights,
                              int64_t depth,
                              __m512 (&sums)[kTokens][kColumns]) {
#pragma GCC unroll 8
  for (auto& of_token : sums) {
#pragma GCC unroll 8
    for (__m512& sum : of_token) sum = _mm512_setzero_ps();
  }
  __m512i columns[kColumns];
  int64_t k = 0;
  for (; k + kPairs <= depth; k += kPairs) {
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; ++n) columns[n] = load_bf16(weights.rows[n] + k);
#pragma GCC unroll 8
    for (int n = 0; n < kFetched; ++n) _mm_prefetch(weights.fetched[n] + k, _MM_HINT_T1);
    multiply_step<kTokens, kColumns>(x + k, x_stride, columns, ~__mmask32{0}, sums);
  }
  if (k == depth) return;
  const __mmask32 tail = first_pairs(depth - k);
#pragma GCC unroll 8
  for (int n = 0; n < kColumns; ++n) columns[n] = load_bf16(tail, weights.rows[n] + k);
  multiply_step<kTokens, kColumns>(x + k, x_stride, columns, tail, sums);
}

HWY_INLINE __m128 load_bias(const TensorView& bias, int64_t column, int64_t count) {
  if (bias.empty()) return _mm_setzero_ps();
  const auto mask = static_cast<__mmask8>(first_lanes(count) & 0xF);
  const __m128i bits = _mm_maskz_loadu_epi16(mask, bias.row<BFloat16>(column));
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(bits), 16));
}

// What a tile computes: out rows [token, token + kTokens), columns [begin, min(begin + kColumns,
// end)). It fetches kFetched weight rows from row `fetched` on.
struct Tile {
  int64_t token = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t fetched = 0;
};

template <int kTokens, int kColumns, int kFetched, typename Out>
HWY_NOINLINE void multiply_columns(const LinearArgs& args, const Tile& tile) {
  const auto [token, begin, end, fetched] = tile;
  WeightRows<kColumns, kFetched> weights;
  for (int n = 0; n < kColumns; ++n) {  // past the end: the last row again, not stored
    weights.rows[n] = args.weight.row<BFloat16>(std::min(begin + n, end - 1));
  }
  const int64_t last = args.weight.shape[0] - 1;
  for (int n = 0; n < kFetched; ++n) {
    weights.fetched[n] = args.weight.row<BFloat16>(std::min(fetched + n, last));
  }
  __m512 sums[kTokens][kColumns];
  const BFloat16* x = args.x.row<BFloat16>(token);
  const int64_t x_stride = kTokens > 1 ? args.x.row<BFloat16>(token + 1) - x : 0;
  multiply_tile<kTokens, kColumns, kFetched>(x, x_stride, weights, args.x.shape[1], sums);
#pragma GCC unroll 2
  for (int n = 0; n < kColumns; n += 4) {
    const int64_t count = end - begin - n;
    if (count <= 0) return;
    const __m128 bias = load_bias(args.bias, begin + n, count);
#pragma GCC unroll 8
    for (int m = 0; m < kTokens; ++m) {
      const __m128 row =
          combine_lanes_of_4<Add>(sums[m][n], sums[m][n + 1], sums[m][n + 2], sums[m][n + 3]);
      store_upto(_mm_add_ps(row, bias), args.out.row<Out>(token + m) + begin + n, count);
    }
  }
}

template <typename Out, int kFetched>
HWY_INLINE void multiply_4_columns(const LinearArgs& args, int64_t num_tokens, const Tile& tile) {
  switch (num_tokens) {
    case 1:
      return multiply_columns<1, 4, kFetched, Out>(args, tile);
    case 2:
      return multiply_columns<2, 4, kFetched, Out>(args, tile);
    case 3:
      return multiply_columns<3, 4, kFetched, Out>(args, tile);
    case 4:
      return multiply_columns<4, 4, kFetched, Out>(args, tile);
    case 5:
      return multiply_columns<5, 4, kFetched, Out>(args, tile);
    default:
      return multiply_columns<6, 4, kFetched, Out>(args, tile);
  }
}

// Tokens [token, token_end) meet columns [begin, end), in tiles of about equal height: x of a tile
// stays in the first-level cache while the weights come from the second. Meanwhile the rows after
// `end` are fetched, as many as there are columns: each tile of tokens fetches some of every four.
template <typename Out>
void multiply_block(
    const LinearArgs& args, int64_t token, int64_t token_end, int64_t begin, int64_t end) {
  const int64_t num_tiles = ceil_div(token_end - token, kTileTokens);
  for (int64_t i = 0; i < num_tiles; ++i) {
    const int64_t height = ceil_div(token_end - token, num_tiles - i);
    const int64_t first = 4 * i / num_tiles;
    const int64_t num_fetched = 4 * (i + 1) / num_tiles - first;
    for (int64_t n = begin; n < end; n += 4) {
      const Tile tile = {token, n, end, n + (end - begin) + first};
      switch (num_fetched) {
        case 0:
          multiply_4_columns<Out, 0>(args, height, tile);
          break;
        case 1:
          multiply_4_columns<Out, 1>(args, height, tile);
          break;
        case 2:
          multiply_4_columns<Out, 2>(args, height, tile);
          break;
        default:
          multiply_4_columns<Out, 4>(args, height, tile);
          break;
      }
    }
    token += height;
  }
}

template <typename Out>
void multiply_range(const LinearArgs& args, int64_t begin, int64_t end) {
  const int64_t num_tokens = args.x.shape[0];
  if (num_tokens == 1) {
    for (int64_t n = begin; n < end; n += 8) {
      multiply_columns<1, 8, 8, Out>(args, {0, n, end, n + 8});
    }
    return;
  }
  const int64_t row_bytes =
      std::max<int64_t>(args.x.shape[1] * static_cast<int64_t>(sizeof(BFloat16)), 1);
  const int64_t block_tokens =
      round_up(std::max(kTokenBlockBytes / row_bytes, kTileTokens), kTileTokens);
  // Where one tile has all tokens, the weights are met once, in the order of memory.
  const int64_t block_rows =
      num_tokens <= kTileTokens
          ? 4
          : round_up(std::max<int64_t>(kRowBlockBytes / row_bytes, 4), int64_t{4});
  for (int64_t token = 0; token < num_tokens; token += block_tokens) {
    const int64_t token_end = std::min(token + block_tokens, num_tokens);
    for (int64_t n = begin; n < end; n += block_rows) {
      multiply_block<Out>(args, token, token_end, n, std::min(n + block_rows, end));
    }
  }
}

}  // namespace

void linear_part_bf16(const LinearArgs& args, int64_t begin, int64_t end) {
  if (args.out.dtype == DType::kF32) {
    multiply_range<float>(args, begin, end);
  } else {
    multiply_range<BFloat16>(args, begin, end);
  }
}

}  // namespace lamina::kernels::cpu
LAMINA_END_AVX512

namespace lamina::kernels::cpu {

void linear_bf16(const LinearArgs& args, ThreadPool& pool) {
  constexpr int64_t kMinWork =
      128 * 1024;  // products: some microseconds, worth waking a thread for
  const int64_t num_rows = args.weight.shape[0];
  const int64_t unit_work = kRowUnit * std::max<int64_t>(args.x.shape[0] * args.x.shape[1], 1);
  pool.parallel_for(ceil_div(num_rows, kRowUnit),
                    ceil_div(kMinWork, unit_work),
                    [&args, num_rows](int64_t begin, int64_t end) {
                      linear_part_bf16(args, begin * kRowUnit, std::min(end * kRowUnit, num_rows));
                    });
}

}  // namespace lamina::kernels::cpu
