// A product with a fixed order of summation, of rows of weights as they lie. Each element of `out`
// has one accumulator vector, to which the products are added in ascending k, and whose lanes are
// summed in one fixed order. Tiling only chooses which elements are computed side by side, so it
// never changes a bit of any (docs/adr/0009). Threads take ranges of weight rows; the weights are
// read from memory once.
#include "kernels/cpu/linear.h"

#include "kernels/cpu/instruction_set.h"
#include "kernels/cpu/linear_packed.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ref/linear.h"

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// clang-format on

#include "base/checked_math.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

// What every thread of one call shares.
struct LinearJob {
  const LinearArgs* args = nullptr;
  float* packed = nullptr;  // x as f32 in load_pair()'s order, [T, depth_padded]
  int64_t depth_padded = 0;
};

inline constexpr int64_t kStep = 2 * kLanes;  // elements of k per step
inline constexpr int64_t kRowUnit = 8;        // weight rows; threads are cut at multiples of it
// Sums of a tile, one vector of each of its weight rows and one of x fit the registers.
inline constexpr int64_t kTileTokens = 6;
inline constexpr int kTileColumns = HWY_TARGET == HWY_AVX2 ? 2 : 4;
// Tokens whose x stays in the second-level cache while the weights pass by.
inline constexpr int64_t kTokenBlockBytes = 384 * 1024;
// Weights that stay there while all these tokens meet them; as many are fetched meanwhile.
inline constexpr int64_t kRowBlockBytes = 128 * 1024;

// Weight rows that a tile fetches into the second-level cache while it meets its own.
template <typename T>
struct FetchedRows {
  const T* begin = nullptr;
  int64_t stride = 0;
  int64_t count = 0;

  HWY_INLINE void fetch(int64_t k) const {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    const T* at = begin + k;
    for (int64_t i = 0; i < count; ++i, at += stride) {
#pragma GCC unroll 4
      for (int64_t j = 0; j < kStep; j += kLine) __builtin_prefetch(at + j, 0, 2);
    }
  }
};

template <int kHalf, typename T, int kTokens, int kColumns>
HWY_INLINE void multiply_half(const float* x,
                              int64_t x_stride,
                              const T* const (&weights)[kColumns],
                              int64_t k,
                              F32Vector (&sums)[kTokens][kColumns]) {
  F32Vector columns[kColumns];
#pragma GCC unroll 8
  for (int n = 0; n < kColumns; ++n) columns[n] = load_half<kHalf>(weights[n] + k);
#pragma GCC unroll 8
  for (int m = 0; m < kTokens; ++m) {
    const F32Vector of_token = hn::Load(F32Tag(), x + m * x_stride + kHalf * kLanes);
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; ++n) {
      sums[m][n] = hn::MulAdd(columns[n], of_token, sums[m][n]);
    }
  }
}

// sums[m][n] = x row m . weights[n], in lanes. `x` is packed; weight rows hold `depth` elements.
template <typename T, int kTokens, int kColumns>
HWY_INLINE void multiply_tile(const float* x,
                              int64_t x_stride,
                              const T* const (&weights)[kColumns],
                              const FetchedRows<T>& fetched,
                              int64_t depth,
                              F32Vector (&sums)[kTokens][kColumns]) {
#pragma GCC unroll 8
  for (auto& of_token : sums) {
#pragma GCC unroll 8
    for (F32Vector& sum : of_token) sum = hn::Zero(F32Tag());
  }
  int64_t k = 0;
  for (; k + kStep <= depth; k += kStep) {
    fetched.fetch(k);
    multiply_half<0>(x + k, x_stride, weights, k, sums);
    multiply_half<1>(x + k, x_stride, weights, k, sums);
  }
  if (k == depth) return;
  // x is padded with zeros; give the weights the same tail.
  T tails[kColumns][kStep] = {};
  const T* tail_rows[kColumns];
  for (int n = 0; n < kColumns; ++n) {
    std::copy(weights[n] + k, weights[n] + depth, tails[n]);
    tail_rows[n] = tails[n];
  }
  multiply_half<0>(x + k, x_stride, tail_rows, 0, sums);
  multiply_half<1>(x + k, x_stride, tail_rows, 0, sums);
}

// results[i] = the lanes of sums[i] together.
template <int kCount>
HWY_INLINE void sum_lanes(const F32Vector* sums, float* results) {
#pragma GCC unroll 8
  for (int i = 0; i < kCount / 4 * 4; i += 4) {
    sum_lanes_of_4(sums[i], sums[i + 1], sums[i + 2], sums[i + 3], results + i);
  }
  if constexpr (kCount % 4 == 2) {
    const F32Vector zero = hn::Zero(F32Tag());
    sum_lanes_of_4(sums[kCount - 2], sums[kCount - 1], zero, zero, results + kCount - 2);
  }
}

template <typename T, typename Out>
HWY_INLINE void store_row(
    const LinearArgs& args, const float* results, int64_t token, int64_t column, int64_t count) {
  Out* out = args.out.row<Out>(token) + column;
  for (int64_t n = 0; n < count; ++n) {
    const float bias = args.bias.empty() ? 0.0F : to_f32(*args.bias.row<T>(column + n));
    out[n] = from_f32<Out>(results[n] + bias);
  }
}

// What a tile computes: out rows [token, token + kTokens), columns [begin, min(begin + kColumns,
// end)). It fetches num_fetched weight rows from row `fetched` on.
struct LinearTile {
  int64_t token = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t fetched = 0;
  int64_t num_fetched = 0;
};

template <typename T, int kTokens, int kColumns>
HWY_NOINLINE void multiply_columns(const LinearJob& job, const LinearTile& tile) {
  const LinearArgs& args = *job.args;
  const int64_t count = std::min<int64_t>(kColumns, tile.end - tile.begin);
  const T* weights[kColumns];
  for (int n = 0; n < kColumns; ++n) {  // past the end: the last row again, not stored
    weights[n] = args.weight.tensor.row<T>(std::min(tile.begin + n, tile.end - 1));
  }
  const int64_t num_rows = args.weight.tensor.shape[0];
  const FetchedRows<T> fetched = {args.weight.tensor.row<T>(std::min(tile.fetched, num_rows - 1)),
                                  args.weight.tensor.shape[1],
                                  std::min(tile.num_fetched, num_rows - tile.fetched)};
  F32Vector sums[kTokens][kColumns];
  multiply_tile<T, kTokens, kColumns>(job.packed + tile.token * job.depth_padded,
                                      job.depth_padded,
                                      weights,
                                      fetched,
                                      args.weight.tensor.shape[1],
                                      sums);
  float results[kTokens * kColumns + 2];
  sum_lanes<kTokens * kColumns>(sums[0], results);
  for (int m = 0; m < kTokens; ++m) {
    if (args.out.dtype == DType::kF32) {
      store_row<T, float>(args, results + m * kColumns, tile.token + m, tile.begin, count);
    } else {
      store_row<T, T>(args, results + m * kColumns, tile.token + m, tile.begin, count);
    }
  }
}

template <typename T>
void multiply_columns(const LinearJob& job, int64_t num_tokens, const LinearTile& tile) {
  switch (num_tokens) {
    case 1:
      return multiply_columns<T, 1, kTileColumns>(job, tile);
    case 2:
      return multiply_columns<T, 2, kTileColumns>(job, tile);
    case 3:
      return multiply_columns<T, 3, kTileColumns>(job, tile);
    case 4:
      return multiply_columns<T, 4, kTileColumns>(job, tile);
    case 5:
      return multiply_columns<T, 5, kTileColumns>(job, tile);
    default:
      return multiply_columns<T, 6, kTileColumns>(job, tile);
  }
}

// Tokens [token, token_end) meet columns [begin, end), in tiles of about equal height: x of a tile
// stays in the first-level cache while the weights come from the second. Meanwhile the rows after
// `end` are fetched, as many as there are columns: each tile of tokens fetches its share.
template <typename T>
void multiply_block(
    const LinearJob& job, int64_t token, int64_t token_end, int64_t begin, int64_t end) {
  const int64_t num_tiles = ceil_div(token_end - token, kTileTokens);
  for (int64_t i = 0; i < num_tiles; ++i) {
    const int64_t height = ceil_div(token_end - token, num_tiles - i);
    const int64_t first = kTileColumns * i / num_tiles;
    const int64_t num_fetched = kTileColumns * (i + 1) / num_tiles - first;
    for (int64_t n = begin; n < end; n += kTileColumns) {
      multiply_columns<T>(job, height, {token, n, end, n + (end - begin) + first, num_fetched});
    }
    token += height;
  }
}

template <typename T>
void multiply_range(const LinearJob& job, int64_t begin, int64_t end) {
  const int64_t num_tokens = job.args->x.shape[0];
  if (num_tokens == 1) {
    for (int64_t n = begin; n < end; n += kRowUnit) {
      multiply_columns<T, 1, kRowUnit>(job, {0, n, end, n + kRowUnit, kRowUnit});
    }
    return;
  }
  const int64_t depth = std::max<int64_t>(job.depth_padded, 1);
  const auto x_bytes = depth * static_cast<int64_t>(sizeof(float));
  const auto row_bytes = depth * static_cast<int64_t>(sizeof(T));
  const int64_t block_tokens =
      round_up(std::max(kTokenBlockBytes / x_bytes, kTileTokens), kTileTokens);
  // Where one tile has all tokens, the weights are met once, in the order of memory.
  const int64_t block_rows =
      num_tokens <= kTileTokens
          ? int64_t{kTileColumns}
          : round_up(std::max(kRowBlockBytes / row_bytes, kRowUnit), kRowUnit);
  for (int64_t token = 0; token < num_tokens; token += block_tokens) {
    const int64_t token_end = std::min(token + block_tokens, num_tokens);
    for (int64_t n = begin; n < end; n += block_rows) {
      multiply_block<T>(job, token, token_end, n, std::min(n + block_rows, end));
    }
  }
}

template <typename T>
void pack_rows(const LinearJob& job, int64_t begin, int64_t end) {
  const int64_t depth = job.args->x.shape[1];
  for (int64_t token = begin; token < end; ++token) {
    const T* x = job.args->x.row<T>(token);
    float* packed = job.packed + token * job.depth_padded;
    F32Vector a;
    F32Vector b;
    for (int64_t k = 0; k < depth; k += kStep) {
      T tail[kStep] = {};
      const T* source = x + k;
      if (k + kStep > depth) {
        std::copy(source, x + depth, tail);
        source = tail;
      }
      load_pair(source, a, b);
      hn::Store(a, F32Tag(), packed + k);
      hn::Store(b, F32Tag(), packed + k + kLanes);
    }
  }
}

template <typename T>
void linear_typed(LinearJob job, ThreadPool& pool) {
  const int64_t num_tokens = job.args->x.shape[0];
  const int64_t num_columns = job.args->weight.tensor.shape[0];
  constexpr int64_t kMinWork = 32 * 1024;  // products: some microseconds, worth waking a thread for
  pool.parallel_for(num_tokens,
                    ceil_div(kMinWork, job.depth_padded),
                    [&job](int64_t begin, int64_t end) { pack_rows<T>(job, begin, end); });
  const int64_t unit_work = kRowUnit * job.depth_padded * std::max<int64_t>(num_tokens, 1);
  pool.parallel_for(ceil_div(num_columns, kRowUnit),
                    ceil_div(kMinWork, unit_work),
                    [&job](int64_t begin, int64_t end) {
                      const int64_t n_end =
                          std::min(end * kRowUnit, job.args->weight.tensor.shape[0]);
                      multiply_range<T>(job, begin * kRowUnit, n_end);
                    });
}

template <typename T>
void linear_part_typed(const LinearJob& job, int64_t begin, int64_t end) {
  pack_rows<T>(job, 0, job.args->x.shape[0]);
  multiply_range<T>(job, begin, end);
}

void linear_part(const LinearArgs& args, int64_t begin, int64_t end) {
  thread_local cpu::Scratch scratch;
  LinearJob job;
  job.args = &args;
  job.depth_padded = round_up(args.x.shape[1], kStep);
  job.packed = scratch.floats(static_cast<size_t>(args.x.shape[0] * job.depth_padded));
  switch (args.x.dtype) {
    case DType::kF32:
      return linear_part_typed<float>(job, begin, end);
    case DType::kF16:
      return linear_part_typed<Float16>(job, begin, end);
    case DType::kBF16:
      return linear_part_typed<BFloat16>(job, begin, end);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "linear on a dtype that is no float");
}

void linear(const LinearArgs& args, ThreadPool& pool) {
  thread_local cpu::Scratch scratch;
  LinearJob job;
  job.args = &args;
  job.depth_padded = round_up(args.x.shape[1], kStep);
  job.packed = scratch.floats(static_cast<size_t>(args.x.shape[0] * job.depth_padded));
  switch (args.x.dtype) {
    case DType::kF32:
      return linear_typed<float>(job, pool);
    case DType::kF16:
      return linear_typed<Float16>(job, pool);
    case DType::kBF16:
      return linear_typed<BFloat16>(job, pool);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "linear on a dtype that is no float");
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::kernels::cpu {

HWY_EXPORT(linear);
HWY_EXPORT(linear_part);

void linear(const LinearArgs& args, ThreadPool& pool) {
  if (!args.weight.is_packed()) return HWY_DYNAMIC_DISPATCH(linear)(args, pool);
  if (!multiplies_packed(args.weight.packed.format)) return ref::linear(args);
  if (is_quantized(args.weight.packed.format)) return linear_int8(args, pool);
  uses_amx() ? linear_amx(args, pool) : linear_pairs(args, pool);
}

void linear_part(const LinearArgs& args, int64_t begin, int64_t end) {
  if (!args.weight.is_packed()) return HWY_DYNAMIC_DISPATCH(linear_part)(args, begin, end);
  if (!multiplies_packed(args.weight.packed.format)) return ref::linear_part(args, begin, end);
  if (is_quantized(args.weight.packed.format)) return linear_part_int8(args, begin, end);
  uses_amx() ? linear_part_amx(args, begin, end) : linear_part_pairs(args, begin, end);
}

bool multiplies_packed(PackedFormat format) {
  return is_quantized(format) ? uses_int8_dot() : uses_amx() || uses_bf16_dot();
}

void head_linear(const TensorView& x,
                 const WeightView& weight,
                 const TensorView& out,
                 ThreadPool& pool) {
  const auto multiply_heads = [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      const auto of_head = [&](const TensorView& view) {
        TensorView part = view.columns(head, 1);
        part.shape = {view.shape[0], view.shape[2]};
        return part;
      };
      const LinearArgs args{of_head(x), weight.matrix(head), {}, of_head(out)};
      linear_part(args, 0, args.weight.shape()[0]);
    }
  };
  pool.parallel_for(
      x.shape[1], 1, [&multiply_heads](int64_t begin, int64_t end) { multiply_heads(begin, end); });
}

}  // namespace lamina::kernels::cpu
#endif
