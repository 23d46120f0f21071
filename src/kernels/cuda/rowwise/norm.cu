// A row is a group of lanes of a warp, a warp or a block, by its width alone: the order of its sums
// depends on neither the batch nor alignment. Rows of up to kMaxThreads * 16 elements stay in
// registers; wider ones are read again.
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.h"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxWarps = kMaxThreads / kWarpLanes;

struct NormParams {
  const void* x;
  const void* added;  // what add_norm adds to x; null for norm
  const void* weight;
  const void* bias;  // may be null
  void* sum;         // of add_norm
  void* out;
  int64_t x_stride;  // of tokens, as the next two
  int64_t added_stride;
  int64_t out_stride;
  int64_t weight_stride;  // of the rows of a token; zero where they share their weights
  int64_t bias_stride;
  int64_t num_rows;  // each normalised by itself
  int64_t width;
  int64_t rows_per_token;
  NormAttrs attrs;
  bool is_aligned;
};

template <typename T>
struct Row {
  const T* x;
  const T* added;
  const T* weight;
  const T* bias;
  T* sum;
  T* out;
  int64_t width;  // zero: there is no such row
};

template <typename T>
__device__ Row<T> find_row(const NormParams& params) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= params.num_rows) return {};
  const int64_t token = row / params.rows_per_token;
  const int64_t head = row % params.rows_per_token;
  const int64_t begin = head * params.width;
  Row<T> found{};
  found.x = static_cast<const T*>(params.x) + token * params.x_stride + begin;
  if (params.added != nullptr) {
    found.added = static_cast<const T*>(params.added) + token * params.added_stride;
    found.sum = static_cast<T*>(params.sum) + token * params.out_stride;
  }
  found.weight = static_cast<const T*>(params.weight) + head * params.weight_stride;
  if (params.bias != nullptr) {
    found.bias = static_cast<const T*>(params.bias) + head * params.bias_stride;
  }
  found.out = static_cast<T*>(params.out) + token * params.out_stride + begin;
  found.width = params.width;
  return found;
}

// What is normalised: elements of x, or of the rounded sum.
template <bool kAdds, typename T, int kCount>
__device__ void load_values(const Row<T>& row, int64_t begin, bool is_aligned, float (&x)[kCount]) {
  load_upto(row.x + begin, row.width - begin, is_aligned, x);
  if constexpr (kAdds) {
    float added[kCount];
    load_upto(row.added + begin, row.width - begin, is_aligned, added);
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = widen(narrow<T>(x[i] + added[i]));
  }
}

// The sum over the threads of a row, the same bits in each. `partials` are of this call alone.
__device__ float row_sum(float value, float (&partials)[kMaxWarps]) {
  const int lanes = min(static_cast<int>(blockDim.x), kWarpLanes);
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(~0U, value, distance);
  }
  if (blockDim.x <= kWarpLanes) return value;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int num_warps = static_cast<int>(blockDim.x) / kWarpLanes;
  if (lane == 0) partials[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  return warp_sum(lane < num_warps ? partials[lane] : 0.0F);
}

template <int kCount>
__device__ void add_values(const float (&x)[kCount], float& sum) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += x[i];  // zeros past the end
}

template <int kCount>
__device__ void add_squares(const float (&x)[kCount], float mean, int64_t left, float& sum) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float difference = i < left ? x[i] - mean : 0.0F;
    sum = fmaf(difference, difference, sum);
  }
}

__device__ float factor_of(float mean_square, float eps) {
  return 1.0F / sqrtf(mean_square + eps);
}

// Writes a vector of the result, and of the sum.
template <bool kAdds, typename T, int kCount>
__device__ void finish(const NormParams& params,
                       const Row<T>& row,
                       int64_t begin,
                       float mean,
                       float factor,
                       const float (&x)[kCount],
                       const float (&weight)[kCount]) {
  const int64_t left = row.width - begin;
  if constexpr (kAdds) store_upto(x, row.sum + begin, left, params.is_aligned);
  float result[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    result[i] = (x[i] - mean) * factor * (weight[i] + params.attrs.weight_offset);
  }
  if (row.bias != nullptr) {
    float bias[kCount];
    load_upto(row.bias + begin, left, params.is_aligned, bias);
#pragma unroll
    for (int i = 0; i < kCount; ++i) result[i] = __fadd_rn(result[i], bias[i]);
  }
  store_upto(result, row.out + begin, left, params.is_aligned);
}

// kItems vectors a thread, which lie blockDim.x apart.
template <typename T, int kItems, bool kAdds>
__global__ void __launch_bounds__(kMaxThreads)
    norm_kernel(const __grid_constant__ NormParams params) {
  after_previous_kernel();
  constexpr int kCount = kVectorElements<T>;
  __shared__ float sum_partials[kMaxWarps];
  __shared__ float square_partials[kMaxWarps];
  const Row<T> row = find_row<T>(params);
  const auto begin_of = [](int item) {
    return static_cast<int64_t>(item * static_cast<int>(blockDim.x) +
                                static_cast<int>(threadIdx.x)) *
           kCount;
  };
  float x[kItems][kCount];
  float weight[kItems][kCount];  // asked for before the sums are waited for
#pragma unroll
  for (int item = 0; item < kItems; ++item) {
    const int64_t begin = begin_of(item);
    load_values<kAdds>(row, begin, params.is_aligned, x[item]);
    load_upto(row.weight + begin, row.width - begin, params.is_aligned, weight[item]);
  }
  const auto width = static_cast<float>(params.width);
  float mean = 0.0F;
  if (params.attrs.kind == NormKind::kLayer) {
    float sum = 0.0F;
#pragma unroll
    for (int item = 0; item < kItems; ++item) add_values(x[item], sum);
    mean = row_sum(sum, sum_partials) / width;
  }
  float squares = 0.0F;
#pragma unroll
  for (int item = 0; item < kItems; ++item) {
    add_squares(x[item], mean, row.width - begin_of(item), squares);
  }
  const float factor = factor_of(row_sum(squares, square_partials) / width, params.attrs.eps);
#pragma unroll
  for (int item = 0; item < kItems; ++item) {
    finish<kAdds>(params, row, begin_of(item), mean, factor, x[item], weight[item]);
  }
}

// A block for each row, of any width; x is read once for each sum and once more for the result.
template <typename T, bool kAdds>
__global__ void __launch_bounds__(kMaxThreads)
    wide_norm_kernel(const __grid_constant__ NormParams params) {
  after_previous_kernel();
  constexpr int kCount = kVectorElements<T>;
  __shared__ float sum_partials[kMaxWarps];
  __shared__ float square_partials[kMaxWarps];
  const Row<T> row = find_row<T>(params);
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kCount;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kCount;
  const auto width = static_cast<float>(params.width);
  float x[kCount];
  float mean = 0.0F;
  if (params.attrs.kind == NormKind::kLayer) {
    float sum = 0.0F;
    for (int64_t begin = first; begin < row.width; begin += step) {
      load_values<kAdds>(row, begin, params.is_aligned, x);
      add_values(x, sum);
    }
    mean = row_sum(sum, sum_partials) / width;
  }
  float squares = 0.0F;
  for (int64_t begin = first; begin < row.width; begin += step) {
    load_values<kAdds>(row, begin, params.is_aligned, x);
    add_squares(x, mean, row.width - begin, squares);
  }
  const float factor = factor_of(row_sum(squares, square_partials) / width, params.attrs.eps);
  for (int64_t begin = first; begin < row.width; begin += step) {
    float weight[kCount];
    load_values<kAdds>(row, begin, params.is_aligned, x);
    load_upto(row.weight + begin, row.width - begin, params.is_aligned, weight);
    finish<kAdds>(params, row, begin, mean, factor, x, weight);
  }
}

template <typename T, bool kAdds>
cudaError_t launch_norm(const NormParams& params, cudaStream_t stream) {
  constexpr int kMaxItems = 16 / kVectorElements<T>;  // 16 elements, and their weights, a thread
  constexpr int kNarrowThreads = 128;
  constexpr int kFewThreads = 512;  // up to which a thread has one vector
  const int64_t vectors = ceil_div(params.width, int64_t{kVectorElements<T>});
  const auto grid_of = [&](int64_t rows) {
    return dim3(static_cast<unsigned>(ceil_div(params.num_rows, rows)));
  };
  const auto block_of = [](int64_t threads) {
    return dim3(static_cast<unsigned>(ceil_div(threads, int64_t{kWarpLanes}) * kWarpLanes));
  };
  if (vectors <= kWarpLanes) {
    const auto lanes = std::bit_ceil(static_cast<unsigned>(vectors));
    const dim3 block(lanes, kNarrowThreads / lanes);
    return launch(norm_kernel<T, 1, kAdds>, {grid_of(block.y), block, stream}, params);
  }
  if (vectors <= kFewThreads) {
    return launch(norm_kernel<T, 1, kAdds>, {grid_of(1), block_of(vectors), stream}, params);
  }
  if (vectors <= kMaxItems * kMaxThreads) {
    const dim3 block = block_of(ceil_div(vectors, int64_t{kMaxItems}));
    return launch(norm_kernel<T, kMaxItems, kAdds>, {grid_of(1), block, stream}, params);
  }
  return launch(wide_norm_kernel<T, kAdds>, {grid_of(1), dim3(kMaxThreads), stream}, params);
}

// Whether every row of `view` begins at 16 bytes, where each index of axis 0 has several of
// `width`.
bool is_aligned(const TensorView& view, int64_t rows_per_index, int64_t width) {
  const auto bytes = static_cast<int64_t>(dtype_bytes(view.dtype));
  return has_aligned_rows(view, view.shape[0]) &&
         (rows_per_index == 1 || width * bytes % kVectorBytes == 0);
}

// [D], or [H, D]; an empty view is as good.
bool is_aligned_weight(const TensorView& weight) {
  return has_aligned_rows(weight, weight.shape.rank() == 2 ? weight.shape[0] : 1);
}
int64_t weight_stride(const TensorView& weight) {
  return weight.shape.rank() == 2 ? weight.row_stride : 0;
}

}  // namespace

Status norm(const NormArgs& args, StreamView stream) {
  const TensorView& x = args.x;
  NormParams params{};
  params.width = x.shape[-1];
  params.rows_per_token = x.row_elements() / params.width;
  params.num_rows = x.shape[0] * params.rows_per_token;
  if (params.num_rows == 0) return {};
  params.x = x.data;
  params.weight = args.weight.data;
  params.bias = args.bias.data;
  params.out = args.out.data;
  params.x_stride = x.row_stride;
  params.out_stride = args.out.row_stride;
  params.weight_stride = weight_stride(args.weight);
  params.bias_stride = weight_stride(args.bias);
  params.attrs = args.attrs;
  params.is_aligned = is_aligned(x, params.rows_per_token, params.width) &&
                      is_aligned(args.out, params.rows_per_token, params.width) &&
                      is_aligned_weight(args.weight) && is_aligned_weight(args.bias);
  return with_element(x.dtype, [&]<typename T>() {
    return lamina::cuda::to_status(launch_norm<T, false>(params, lamina::cuda::raw(stream)),
                                   "norm");
  });
}

Status add_norm(const AddNormArgs& args, StreamView stream) {
  const TensorView& a = args.a;
  NormParams params{};
  params.width = a.shape[1];
  params.rows_per_token = 1;
  params.num_rows = a.shape[0];
  if (params.num_rows == 0) return {};
  params.x = a.data;
  params.added = args.b.data;
  params.weight = args.weight.data;
  params.bias = args.bias.data;
  params.sum = args.out.data;
  params.out = args.out.data + static_cast<size_t>(params.width) * dtype_bytes(a.dtype);
  params.x_stride = a.row_stride;
  params.added_stride = args.b.row_stride;
  params.out_stride = args.out.row_stride;
  params.attrs = args.attrs;
  params.is_aligned = is_aligned(a, 1, params.width) && is_aligned(args.b, 1, params.width) &&
                      is_aligned(args.out, 2, params.width) && is_aligned_weight(args.weight) &&
                      is_aligned_weight(args.bias);
  return with_element(a.dtype, [&]<typename T>() {
    return lamina::cuda::to_status(launch_norm<T, true>(params, lamina::cuda::raw(stream)),
                                   "add_norm");
  });
}

}  // namespace lamina::kernels::cuda
