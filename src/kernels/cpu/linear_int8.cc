// The product of x, rounded to int8, with a panel of 16 weight rows: each lane sums a row, so no
// sum runs across lanes. A block of 32 columns is eight int8 dot products of four columns for all
// rows of the panel, exact in int32; then the sums of the block, scaled, are added to the f32 ones.
// What a panel needs of x are its blocks' integers, four at a time in every lane, and their scales.
#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "base/checked_math.h"
#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/linear_packed.h"
#include "kernels/cpu/panel_rows-inl.h"
#include "kernels/cpu/scratch.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu {
namespace {

using namespace avx512;  // NOLINT(google-build-using-namespace): the helpers of this file

static_assert(kPanelRows == kLanes && kBlockColumns == kPairs);
constexpr int64_t kTileTokens = 8;  // sums, and the eight vectors of a block, stay in registers
constexpr int kGroups = 8;          // of four columns in a block

// x rounded by blocks, and what the bias of the weights' integers, or their minimum, adds to the
// sum of a block: for kInt8 -128 times the sum of its integers (i32), for kInt4 that sum times the
// scale (f32).
struct RoundedX {
  int8_t* values = nullptr;     // [T, K]
  float* scales = nullptr;      // [T, K / 32]
  uint32_t* offsets = nullptr;  // [T, K / 32]
};

// What every thread of one call shares.
struct Int8Job {
  const LinearArgs* args = nullptr;
  RoundedX x;

  [[nodiscard]] const PackedMatrix& weight() const { return args->weight.packed; }
};

template <typename T>
void round_token(const Int8Job& job, int64_t token) {
  const PackedMatrix& weight = job.weight();
  const T* from = job.args->x.row<T>(token);
  int8_t* values = job.x.values + token * weight.columns;
  float* scales = job.x.scales + token * weight.num_blocks();
  uint32_t* offsets = job.x.offsets + token * weight.num_blocks();
  for (int64_t b = 0; b < weight.num_blocks();
       ++b, from += kBlockColumns, values += kBlockColumns) {
    const __m512 lower = load_lanes(from);
    const __m512 upper = load_lanes(from + kLanes);
    const float largest =
        _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(lower), _mm512_abs_ps(upper)));
    const __m512 inverse = _mm512_set1_ps(largest > 0.0F ? 127.0F / largest : 0.0F);
    const __m512i lower_int = _mm512_cvtps_epi32(_mm512_mul_ps(lower, inverse));
    const __m512i upper_int = _mm512_cvtps_epi32(_mm512_mul_ps(upper, inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values), _mm512_cvtsepi32_epi8(lower_int));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + kLanes), _mm512_cvtsepi32_epi8(upper_int));
    const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(lower_int, upper_int));
    scales[b] = largest / 127.0F;
    offsets[b] = weight.format == PackedFormat::kInt4
                     ? std::bit_cast<uint32_t>(scales[b] * static_cast<float>(sum))
                     : static_cast<uint32_t>(-128 * sum);
  }
}

void round_tokens(const Int8Job& job, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    switch (job.args->x.dtype) {
      case DType::kF32:
        round_token<float>(job, token);
        break;
      case DType::kF16:
        round_token<Float16>(job, token);
        break;
      case DType::kBF16:
        round_token<BFloat16>(job, token);
        break;
      case DType::kI32:
      case DType::kU8:
      case DType::kI8:
      case DType::kF8E4M3:
        break;
    }
  }
}

// The integers of a block for all rows of a panel, unsigned, a vector for each group of columns.
template <PackedFormat kFormat>
HWY_INLINE void load_block(const uint8_t* integers, __m512i (&groups)[kGroups]) {
  if constexpr (kFormat == PackedFormat::kInt8) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) groups[g] = _mm512_loadu_si512(integers + 64 * g);
  } else {
    const __m512i nibble = _mm512_set1_epi8(0xF);
#pragma GCC unroll 4
    for (int g = 0; g < kGroups / 2; ++g) {
      const __m512i both = _mm512_loadu_si512(integers + 64 * g);
      groups[g] = _mm512_and_si512(both, nibble);
      groups[g + kGroups / 2] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
  }
}

// sums[t] = token t . the rows of the panel.
template <PackedFormat kFormat, int kTokens>
HWY_INLINE void multiply_panel(const Int8Job& job,
                               int64_t token,
                               int64_t panel,
                               __m512 (&sums)[kTokens]) {
  const PackedMatrix& weight = job.weight();
  constexpr bool kIsInt4 = kFormat == PackedFormat::kInt4;
  constexpr int64_t kIntegerBytes = kPanelRows * kBlockColumns / (kIsInt4 ? 2 : 1);
  constexpr int64_t kBlockScales = kPanelRows * (kIsInt4 ? 2 : 1);
  const uint8_t* integers = weight.integers(panel);
  const Float16* scales = weight.scales(panel);
  const int64_t num_blocks = weight.num_blocks();
  const int8_t* x = job.x.values + token * weight.columns;
  const float* x_scales = job.x.scales + token * num_blocks;
  const uint32_t* offsets = job.x.offsets + token * num_blocks;
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) sums[t] = _mm512_setzero_ps();
  for (int64_t b = 0; b < num_blocks; ++b) {
    __m512i groups[kGroups];
    load_block<kFormat>(integers + b * kIntegerBytes, groups);
    const __m512 scale = load_lanes(scales + b * kBlockScales);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* columns = x + t * weight.columns + b * kBlockColumns;
      const int64_t at = t * num_blocks + b;
      __m512i even =
          kIsInt4 ? _mm512_setzero_si512() : _mm512_set1_epi32(static_cast<int32_t>(offsets[at]));
      __m512i odd = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; g += 2) {
        even = _mm512_dpbusd_epi32(even, groups[g], broadcast_4(columns + 4 * g));
        odd = _mm512_dpbusd_epi32(odd, groups[g + 1], broadcast_4(columns + 4 * g + 4));
      }
      const __m512 block_sum = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
      const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(x_scales[at]));
      sums[t] = _mm512_fmadd_ps(block_sum, factor, sums[t]);
      if constexpr (kIsInt4) {
        const __m512 minimum = load_lanes(scales + b * kBlockScales + kPanelRows);
        const __m512 offset = _mm512_set1_ps(std::bit_cast<float>(offsets[at]));
        sums[t] = _mm512_fmadd_ps(minimum, offset, sums[t]);
      }
    }
  }
}

template <PackedFormat kFormat, int kTokens>
HWY_NOINLINE void multiply_tile(const Int8Job& job, int64_t token, int64_t panel) {
  const int64_t row = panel * kPanelRows;
  const int64_t count = job.weight().rows - row;
  __m512 sums[kTokens];
  multiply_panel<kFormat, kTokens>(job, token, panel, sums);
  const __m512 bias = load_bias(job.args->bias, row, count);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    store_row(job.args->out, _mm512_add_ps(sums[t], bias), token + t, row, count);
  }
}

using MultiplyTile = void (*)(const Int8Job&, int64_t, int64_t);

// By the number of tokens, from one on.
template <PackedFormat kFormat, int... kCounts>
constexpr auto tiles_of(std::integer_sequence<int, kCounts...> /*counts*/) {
  return std::array<MultiplyTile, sizeof...(kCounts)>{multiply_tile<kFormat, kCounts + 1>...};
}

template <PackedFormat kFormat>
void multiply_panels(const Int8Job& job, int64_t begin, int64_t end) {
  constexpr auto kMultiply = tiles_of<kFormat>(std::make_integer_sequence<int, kTileTokens>());
  const int64_t num_tokens = job.args->x.shape[0];
  for (int64_t panel = begin; panel < end; ++panel) {
    int64_t tiles_left = ceil_div(num_tokens, kTileTokens);
    for (int64_t token = 0; token < num_tokens;) {
      const int64_t height = ceil_div(num_tokens - token, tiles_left--);
      kMultiply[static_cast<size_t>(height - 1)](job, token, panel);
      token += height;
    }
  }
}

}  // namespace
}  // namespace lamina::kernels::cpu
LAMINA_END_AVX512

namespace lamina::kernels::cpu {
namespace {

// Cut from one allocation.
RoundedX make_rounded(const LinearArgs& args, Scratch& scratch) {
  const int64_t num_tokens = args.x.shape[0];
  const PackedMatrix& weight = args.weight.packed;
  const int64_t num_scales = num_tokens * weight.num_blocks();
  const int64_t num_values = num_tokens * weight.columns;
  float* memory = scratch.floats(static_cast<size_t>(2 * num_scales + num_values / 4));
  return {.values = reinterpret_cast<int8_t*>(memory + 2 * num_scales),
          .scales = memory,
          .offsets = reinterpret_cast<uint32_t*>(memory + num_scales)};
}

Int8Job make_job(const LinearArgs& args) {
  thread_local Scratch scratch;
  return {&args, make_rounded(args, scratch)};
}

void multiply_panels(const Int8Job& job, int64_t begin, int64_t end) {
  if (job.weight().format == PackedFormat::kInt4) {
    multiply_panels<PackedFormat::kInt4>(job, begin, end);
  } else {
    multiply_panels<PackedFormat::kInt8>(job, begin, end);
  }
}

}  // namespace

void linear_part_int8(const LinearArgs& args, int64_t begin, int64_t end) {
  const Int8Job job = make_job(args);
  round_tokens(job, 0, args.x.shape[0]);
  multiply_panels(job, begin / kPanelRows, ceil_div(end, kPanelRows));
}

void linear_int8(const LinearArgs& args, ThreadPool& pool) {
  const Int8Job job = make_job(args);
  const int64_t num_tokens = args.x.shape[0];
  const int64_t columns = job.weight().columns;
  constexpr int64_t kMinElements = 16 * 1024;  // of x: some microseconds
  constexpr int64_t kMinProducts = 512 * 1024;
  pool.parallel_for(num_tokens,
                    ceil_div(kMinElements, columns),
                    [&job](int64_t begin, int64_t end) { round_tokens(job, begin, end); });
  const int64_t panel_work = kPanelRows * columns * std::max<int64_t>(num_tokens, 1);
  pool.parallel_for(job.weight().num_panels(),
                    ceil_div(kMinProducts, panel_work),
                    [&job](int64_t begin, int64_t end) { multiply_panels(job, begin, end); });
}

}  // namespace lamina::kernels::cpu
