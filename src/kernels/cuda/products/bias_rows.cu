#include <algorithm>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/products/bias_rows.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxRowBlocks = 65535;  // of the grid's second axis

// A thread for each column of some rows.
template <typename Out>
__global__ void bias_rows(const __grid_constant__ BiasRowsParams params) {
  after_previous_kernel();
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
  const Launch how = {grid, dim3(kThreads), stream};
  switch (params.out_element) {
    case ElementKind::kF32:
      return launch(bias_rows<float>, how, params);
    case ElementKind::kF16:
      return launch(bias_rows<__half>, how, params);
    case ElementKind::kBF16:
      return launch(bias_rows<__nv_bfloat16>, how, params);
  }
  return cudaErrorInvalidValue;
}

}  // namespace lamina::kernels::cuda
