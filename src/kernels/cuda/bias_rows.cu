#include <algorithm>

#include "kernels/cuda/bias_rows.cuh"
#include "kernels/cuda/element.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxRowBlocks = 65535;  // of the grid's second axis

// A thread for each column of some rows.
template <typename Out>
__global__ void bias_rows(const __grid_constant__ BiasRowsParams params) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= params.num_columns) return;
  const Out value = narrow<Out>(load_float(params.bias, params.bias_element, column));
  for (int64_t row = blockIdx.y; row < params.num_rows; row += gridDim.y) {
    static_cast<Out*>(params.out)[row * params.out_stride + column] = value;
  }
}

}  // namespace

cudaError_t launch_bias_rows(const BiasRowsParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((params.num_columns + kThreads - 1) / kThreads),
                  static_cast<unsigned>(std::min(params.num_rows, kMaxRowBlocks)));
  switch (params.out_element) {
    case ElementKind::kF32:
      bias_rows<float><<<grid, kThreads, 0, stream>>>(params);
      break;
    case ElementKind::kF16:
      bias_rows<__half><<<grid, kThreads, 0, stream>>>(params);
      break;
    case ElementKind::kBF16:
      bias_rows<__nv_bfloat16><<<grid, kThreads, 0, stream>>>(params);
      break;
  }
  return cudaGetLastError();
}

}  // namespace lamina::kernels::cuda
