// A product with a fixed order of summation. Each element of `out` has one accumulator vector, to
// which the products are added in ascending k, and whose lanes are summed in one fixed order.
// Tiling only chooses which elements are computed side by side, so it never changes a bit of any
// (docs/adr/0009). Threads take ranges of weight rows; the weights are read from memory once.
#include "kernels/cpu/linear.h"

#include "kernels/cpu/instruction_set.h"
#include "kernels/cpu/linear_amx.h"
#include "kernels/cpu/linear_bf16.h"
#include "kernels/cpu/scratch.h"

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
// Weights that stay in the second-level cache while all tiles of x pass over them.
inline constexpr int64_t kBlockBytes = 256 * 1024;

template <typename T, int kRows, int kColumns>
HWY_INLINE void multiply_step(const float* x,
                              int64_t x_stride,
                              const T* const (&weights)[kColumns],
                              int64_t k,
                              F32Vector (&sums)[kRows][kColumns]) {
  F32Vector x0[kRows];
  F32Vector x1[kRows];
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    x0[m] = hn::Load(F32Tag(), x + m * x_stride);
    x1[m] = hn::Load(F32Tag(), x + m * x_stride + kLanes);
  }
#pragma GCC unroll 8
  for (int n = 0; n < kColumns; ++n) {
    F32Vector w0;
    F32Vector w1;
    load_pair(weights[n] + k, w0, w1);
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) sums[m][n] = hn::MulAdd(w0, x0[m], sums[m][n]);
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) sums[m][n] = hn::MulAdd(w1, x1[m], sums[m][n]);
  }
}

// results[m][n] = x row m . weights[n]. `x` is packed; weight rows hold `depth` elements.
template <typename T, int kRows, int kColumns>
HWY_INLINE void multiply_tile(const float* x,
                              int64_t x_stride,
                              const T* const (&weights)[kColumns],
                              int64_t depth,
                              float (&results)[kRows][kColumns]) {
  F32Vector sums[kRows][kColumns];
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; ++n) sums[m][n] = hn::Zero(F32Tag());
  }
  int64_t k = 0;
  for (; k + kStep <= depth; k += kStep) {
    multiply_step<T, kRows, kColumns>(x + k, x_stride, weights, k, sums);
  }
  if (k < depth) {  // x is padded with zeros; give the weights the same tail
    T tails[kColumns][kStep] = {};
    const T* tail_rows[kColumns];
    for (int n = 0; n < kColumns; ++n) {
      std::copy(weights[n] + k, weights[n] + depth, tails[n]);
      tail_rows[n] = tails[n];
    }
    multiply_step<T, kRows, kColumns>(x + k, x_stride, tail_rows, 0, sums);
  }
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < kColumns; n += 4) {
      sum_lanes_of_4(sums[m][n], sums[m][n + 1], sums[m][n + 2], sums[m][n + 3], &results[m][n]);
    }
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

// Rows [token, token + kRows) of out, columns [begin, end).
template <typename T, int kRows, int kColumns>
HWY_NOINLINE void multiply_columns(const LinearJob& job,
                                   int64_t token,
                                   int64_t begin,
                                   int64_t end) {
  const LinearArgs& args = *job.args;
  const float* x = job.packed + token * job.depth_padded;
  for (int64_t column = begin; column < end; column += kColumns) {
    const int64_t count = std::min<int64_t>(kColumns, end - column);
    const T* weights[kColumns];
    for (int n = 0; n < kColumns; ++n) {  // past the end: the last row again, not stored
      weights[n] = args.weight.row<T>(std::min(column + n, end - 1));
    }
    float results[kRows][kColumns];
    multiply_tile<T, kRows, kColumns>(x, job.depth_padded, weights, args.weight.shape[1], results);
    for (int m = 0; m < kRows; ++m) {
      if (args.out.dtype == DType::kF32) {
        store_row<T, float>(args, results[m], token + m, column, count);
      } else {
        store_row<T, T>(args, results[m], token + m, column, count);
      }
    }
  }
}

template <typename T>
void multiply_range(const LinearJob& job, int64_t begin, int64_t end) {
  const int64_t num_tokens = job.args->x.shape[0];
  const int64_t row_bytes = job.args->weight.shape[1] * static_cast<int64_t>(sizeof(T));
  const int64_t block = round_up(std::max(kBlockBytes / row_bytes, kRowUnit), kRowUnit);
  for (int64_t n = begin; n < end; n += block) {
    const int64_t n_end = std::min(n + block, end);
    for (int64_t token = 0; token < num_tokens; token += 4) {
      switch (std::min<int64_t>(4, num_tokens - token)) {
        case 1:
          multiply_columns<T, 1, 8>(job, token, n, n_end);
          break;
        case 2:
          multiply_columns<T, 2, 4>(job, token, n, n_end);
          break;
        case 3:
          multiply_columns<T, 3, 4>(job, token, n, n_end);
          break;
        default:
          multiply_columns<T, 4, 4>(job, token, n, n_end);
          break;
      }
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
  const int64_t num_columns = job.args->weight.shape[0];
  constexpr int64_t kMinWork = 32 * 1024;  // products: some microseconds, worth waking a thread for
  pool.parallel_for(num_tokens,
                    ceil_div(kMinWork, job.depth_padded),
                    [&job](int64_t begin, int64_t end) { pack_rows<T>(job, begin, end); });
  const int64_t unit_work = kRowUnit * job.depth_padded * std::max<int64_t>(num_tokens, 1);
  pool.parallel_for(ceil_div(num_columns, kRowUnit),
                    ceil_div(kMinWork, unit_work),
                    [&job](int64_t begin, int64_t end) {
                      const int64_t n_end = std::min(end * kRowUnit, job.args->weight.shape[0]);
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
  if (args.x.dtype == DType::kBF16 && uses_amx()) return linear_amx(args, pool);
  if (args.x.dtype == DType::kBF16 && uses_bf16_dot()) return linear_bf16(args, pool);
  HWY_DYNAMIC_DISPATCH(linear)(args, pool);
}

void linear_part(const LinearArgs& args, int64_t begin, int64_t end) {
  if (args.x.dtype == DType::kBF16 && uses_amx()) return linear_part_amx(args, begin, end);
  if (args.x.dtype == DType::kBF16 && uses_bf16_dot()) return linear_part_bf16(args, begin, end);
  HWY_DYNAMIC_DISPATCH(linear_part)(args, begin, end);
}

void head_linear(const TensorView& x,
                 const TensorView& weight,
                 const TensorView& out,
                 ThreadPool& pool) {
  const Shape head_weight = {weight.shape[1], weight.shape[2]};
  const auto multiply_heads = [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      const auto of_head = [&](const TensorView& view) {
        TensorView part = view.columns(head, 1);
        part.shape = {view.shape[0], view.shape[2]};
        return part;
      };
      const TensorView matrix(weight.rows(head, 1).data, weight.dtype, head_weight);
      const LinearArgs args{of_head(x), matrix, {}, of_head(out)};
      linear_part(args, 0, head_weight[0]);
    }
  };
  pool.parallel_for(
      x.shape[1], 1, [&multiply_heads](int64_t begin, int64_t end) { multiply_heads(begin, end); });
}

}  // namespace lamina::kernels::cpu
#endif
