#include "kernels/cuda/attention/append_kv.cuh"
#include "kernels/cuda/attention/swizzle.cuh"
#include "kernels/cuda/launch.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// A thread for each chunk of 16 bytes; the grid's second axis is keys, values.
__global__ void append_kv(const __grid_constant__ AppendKvParams params) {
  after_previous_kernel();
  const int chunks = params.row_bytes / 16;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<int64_t>(params.num_tokens) * params.num_kv_heads * chunks) return;
  const int chunk = static_cast<int>(i % chunks);
  const int64_t row = i / chunks;
  const int head = static_cast<int>(row % params.num_kv_heads);
  const int64_t slot = params.slot_mapping[row / params.num_kv_heads];
  if (slot < 0) return;
  const int token = static_cast<int>(slot % params.block_size);
  const int64_t to_row =
      (slot / params.block_size * params.num_kv_heads + head) * params.block_size + token;
  const bool is_key = blockIdx.y == 0;
  const auto* from =
      static_cast<const unsigned char*>(is_key ? params.k : params.v) +
      row / params.num_kv_heads * (is_key ? params.k_stride_bytes : params.v_stride_bytes) +
      head * params.row_bytes;
  auto* to = static_cast<uint4*>(is_key ? params.k_cache : params.v_cache);
  to[to_row * chunks + swizzled_chunk(chunks, token, chunk)] =
      reinterpret_cast<const uint4*>(from)[chunk];
}

}  // namespace

cudaError_t launch_append_kv(const AppendKvParams& params, cudaStream_t stream) {
  const int64_t chunks =
      static_cast<int64_t>(params.num_tokens) * params.num_kv_heads * (params.row_bytes / 16);
  if (chunks == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((chunks + kThreads - 1) / kThreads),
                  params.v == nullptr ? 1 : 2);
  return launch(append_kv, {grid, dim3(kThreads), stream}, params);
}

}  // namespace lamina::kernels::cuda
