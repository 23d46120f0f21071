// The table: a thread for each angle. The rotation: a thread for each vector of a head that is
// rotated, with its counterpart of the other half, or passed through.
#include <fmt/format.h>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.h"

namespace lamina::kernels::cuda {
namespace {

constexpr int kMaxFrequencies = 512;

struct RopeTableParams {
  const int32_t* positions;
  float* out;
  int64_t position_stride;
  int64_t out_stride;
  int64_t num_rows;
  int32_t num_frequencies;
  float magnitude;
  float inv_freq[kMaxFrequencies];
};

__global__ void rope_table_kernel(const __grid_constant__ RopeTableParams params) {
  after_previous_kernel();
  const int64_t i = column();
  if (i >= params.num_frequencies) return;
  for (int64_t row = first_row(); row < params.num_rows; row += row_step()) {
    const auto position = static_cast<float>(params.positions[row * params.position_stride]);
    float sine = 0.0F;
    float cosine = 0.0F;
    // The angle is an f32 product, as it is where models are trained.
    sincosf(__fmul_rn(position, params.inv_freq[i]), &sine, &cosine);
    float* const out = params.out + row * params.out_stride;
    out[i] = cosine * params.magnitude;
    out[params.num_frequencies + i] = sine * params.magnitude;
  }
}

struct RopeParams {
  const void* x;
  const float* table;
  void* out;
  int64_t x_stride;
  int64_t table_stride;
  int64_t out_stride;
  int64_t num_rows;
  int64_t num_columns;  // vectors of a row
  int32_t head_dim;
  int32_t half;             // of what is rotated
  int32_t rotated_vectors;  // of a head: pairs of them where halves are rotated
  int32_t head_vectors;     // with those passed through
  bool is_aligned;
};

// What a thread turns: addresses of a head and of a row of the table.
template <typename T>
struct Head {
  const T* x;
  const float* cosines;
  const float* sines;
  T* out;
};

// Elements [begin, begin + kCount) of the first half and of the second.
template <typename T>
__device__ void rotate_halves(const RopeParams& params, const Head<T>& head, int begin) {
  constexpr int kCount = kVectorElements<T>;
  const int left = params.half - begin;
  float a[kCount];
  float b[kCount];
  float cosine[kCount];
  float sine[kCount];
  load_upto(head.x + begin, left, params.is_aligned, a);
  load_upto(head.x + params.half + begin, left, params.is_aligned, b);
  load_upto(head.cosines + begin, left, params.is_aligned, cosine);
  load_upto(head.sines + begin, left, params.is_aligned, sine);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float first = a[i] * cosine[i] - b[i] * sine[i];
    b[i] = b[i] * cosine[i] + a[i] * sine[i];
    a[i] = first;
  }
  store_upto(a, head.out + begin, left, params.is_aligned);
  store_upto(b, head.out + params.half + begin, left, params.is_aligned);
}

// Elements [begin, begin + kCount), which are pairs of neighbours.
template <typename T>
__device__ void rotate_neighbours(const RopeParams& params, const Head<T>& head, int begin) {
  constexpr int kCount = kVectorElements<T>;
  const int left = 2 * params.half - begin;
  float x[kCount];
  float cosine[kCount / 2];
  float sine[kCount / 2];
  load_upto(head.x + begin, left, params.is_aligned, x);
  load_upto(head.cosines + begin / 2, left / 2, params.is_aligned, cosine);
  load_upto(head.sines + begin / 2, left / 2, params.is_aligned, sine);
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    x[2 * i] = a * cosine[i] - b * sine[i];
    x[2 * i + 1] = b * cosine[i] + a * sine[i];
  }
  store_upto(x, head.out + begin, left, params.is_aligned);
}

template <typename T>
__device__ void pass_through(const RopeParams& params, const Head<T>& head, int begin) {
  float x[kVectorElements<T>];
  load_upto(head.x + begin, params.head_dim - begin, params.is_aligned, x);
  store_upto(x, head.out + begin, params.head_dim - begin, params.is_aligned);
}

template <typename T, bool kInterleaved>
__global__ void rope_kernel(const __grid_constant__ RopeParams params) {
  after_previous_kernel();
  constexpr int kCount = kVectorElements<T>;
  if (column() >= params.num_columns) return;
  const auto vector = static_cast<int>(column() % params.head_vectors);
  const int64_t head_begin = column() / params.head_vectors * params.head_dim;
  for (int64_t row = first_row(); row < params.num_rows; row += row_step()) {
    const float* const angles = params.table + row * params.table_stride;
    const Head<T> head{static_cast<const T*>(params.x) + row * params.x_stride + head_begin,
                       angles,
                       angles + params.half,
                       static_cast<T*>(params.out) + row * params.out_stride + head_begin};
    if (vector >= params.rotated_vectors) {
      pass_through(params, head, 2 * params.half + (vector - params.rotated_vectors) * kCount);
    } else if constexpr (kInterleaved) {
      rotate_neighbours(params, head, vector * kCount);
    } else {
      rotate_halves(params, head, vector * kCount);
    }
  }
}

template <typename T, bool kInterleaved>
Status launch_rope(RopeParams params, int64_t num_heads, cudaStream_t stream) {
  constexpr int kCount = kVectorElements<T>;
  const int32_t rotated = kInterleaved ? 2 * params.half : params.half;
  params.is_aligned = params.is_aligned && params.head_dim % kCount == 0 && rotated % kCount == 0;
  params.rotated_vectors = ceil_div(rotated, kCount);
  const bool is_in_place = params.out == params.x;
  const int32_t passed = is_in_place ? 0 : params.head_dim - 2 * params.half;
  params.head_vectors = params.rotated_vectors + ceil_div(passed, kCount);
  params.num_columns = num_heads * params.head_vectors;
  if (params.num_columns == 0) return {};
  const RowGrid grid(params.num_rows, params.num_columns);
  const Launch how = {grid.grid, grid.block, stream};
  return lamina::cuda::to_status(launch(rope_kernel<T, kInterleaved>, how, params), "rope");
}

}  // namespace

Status rope_table(TensorView positions,
                  std::span<const float> inv_freq,
                  float magnitude,
                  TensorView out,
                  StreamView stream) {
  if (inv_freq.size() > kMaxFrequencies) {
    return invalid_argument(fmt::format(
        "rope_table: {} frequencies, of which GPUs take {}", inv_freq.size(), kMaxFrequencies));
  }
  RopeTableParams params{};
  params.num_rows = positions.shape[0];
  params.num_frequencies = static_cast<int32_t>(inv_freq.size());
  if (params.num_rows == 0 || params.num_frequencies == 0) return {};
  params.positions = positions.as<int32_t>();
  params.out = out.as<float>();
  params.position_stride = positions.row_stride;
  params.out_stride = out.row_stride;
  params.magnitude = magnitude;
  std::copy(inv_freq.begin(), inv_freq.end(), params.inv_freq);
  const RowGrid grid(params.num_rows, params.num_frequencies);
  const Launch how = {grid.grid, grid.block, lamina::cuda::raw(stream)};
  return lamina::cuda::to_status(launch(rope_table_kernel, how, params), "rope_table");
}

Status rope(TensorView x, TensorView table, bool interleaved, TensorView out, StreamView stream) {
  RopeParams params{};
  params.x = x.data;
  params.table = table.as<float>();
  params.out = out.data;
  params.x_stride = x.row_stride;
  params.table_stride = table.row_stride;
  params.out_stride = out.row_stride;
  params.num_rows = x.shape[0];
  if (params.num_rows == 0) return {};
  params.head_dim = static_cast<int32_t>(x.shape[2]);
  params.half = static_cast<int32_t>(table.shape[1] / 2);
  params.is_aligned = has_aligned_rows(x, params.num_rows) &&
                      has_aligned_rows(out, params.num_rows) &&
                      has_aligned_rows(table, params.num_rows);
  const cudaStream_t raw = lamina::cuda::raw(stream);
  return with_element(x.dtype, [&]<typename T>() {
    return interleaved ? launch_rope<T, true>(params, x.shape[1], raw)
                       : launch_rope<T, false>(params, x.shape[1], raw);
  });
}

}  // namespace lamina::kernels::cuda
