// What benchmarks on GPUs share: the time of launches in a captured graph, and the bandwidth at
// which memory is read, which they compare with.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cuda/testing/device_memory.cuh"

namespace lamina::kernels::cuda::testing {

// The median over several replays of a graph, in which body(i, stream) is called `num_calls` times:
// seconds of one. Called once before, for what cannot be captured at first.
template <typename Body>
double median_seconds(int num_calls, const Body& body) {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  LAMINA_REQUIRE_CUDA(cudaStreamCreate(&stream));
  body(0, stream);
  LAMINA_REQUIRE_CUDA(cudaStreamSynchronize(stream));
  LAMINA_REQUIRE_CUDA(cudaEventCreate(&begin));
  LAMINA_REQUIRE_CUDA(cudaEventCreate(&end));
  LAMINA_REQUIRE_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < num_calls; ++i) body(i, stream);
  LAMINA_REQUIRE_CUDA(cudaStreamEndCapture(stream, &graph));
  LAMINA_REQUIRE_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 8; ++repeat) {
    LAMINA_REQUIRE_CUDA(cudaEventRecord(begin, stream));
    LAMINA_REQUIRE_CUDA(cudaGraphLaunch(exec, stream));
    LAMINA_REQUIRE_CUDA(cudaEventRecord(end, stream));
    LAMINA_REQUIRE_CUDA(cudaEventSynchronize(end));
    float ms = 0.0F;
    LAMINA_REQUIRE_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (repeat > 0) seconds.push_back(ms * 1e-3 / num_calls);
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

template <int kUnroll>
__global__ void read_stride(const uint4* data, size_t count, uint32_t* sink) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  uint32_t sum = 0;
  size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + (kUnroll - 1) * stride < count; i += kUnroll * stride) {
    uint4 values[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) values[u] = __ldcs(data + i + u * stride);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      sum += values[u].x ^ values[u].y ^ values[u].z ^ values[u].w;
    }
  }
  if (sum == 0x12345678) *sink = sum;
}

// Each block reads a stretch of its own.
template <int kUnroll>
__global__ void read_stretch(const uint4* data, size_t count, uint32_t* sink) {
  const size_t each = count / gridDim.x;
  const uint4* own = data + each * blockIdx.x;
  uint32_t sum = 0;
  for (size_t i = threadIdx.x; i + (kUnroll - 1) * blockDim.x < each; i += kUnroll * blockDim.x) {
    uint4 values[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) values[u] = __ldcs(own + i + u * blockDim.x);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      sum += values[u].x ^ values[u].y ^ values[u].z ^ values[u].w;
    }
  }
  if (sum == 0x12345678) *sink = sum;
}

// Bytes per second: the best of several ways to read memory that the cache does not hold.
inline double measure_read(int num_sms) {
  constexpr size_t kBytes = size_t{4} << 30;
  const DeviceArray<uint4> data(kBytes / sizeof(uint4));
  data.fill_bytes(1);
  const DeviceArray<uint32_t> sink(1);
  double best = 0.0;
  for (const int blocks_per_sm : {2, 4, 8, 16}) {
    for (const int way : {0, 1, 2, 3}) {
      const int blocks = num_sms * blocks_per_sm;
      const double seconds = median_seconds(4, [&](int /*call*/, cudaStream_t stream) {
        switch (way) {
          case 0:
            read_stride<4><<<blocks, 256, 0, stream>>>(data.data(), data.size(), sink.data());
            break;
          case 1:
            read_stride<8><<<blocks, 256, 0, stream>>>(data.data(), data.size(), sink.data());
            break;
          case 2:
            read_stretch<4><<<blocks, 256, 0, stream>>>(data.data(), data.size(), sink.data());
            break;
          default:
            read_stretch<8><<<blocks, 256, 0, stream>>>(data.data(), data.size(), sink.data());
            break;
        }
      });
      best = std::max(best, static_cast<double>(kBytes) / seconds);
    }
  }
  return best;
}

}  // namespace lamina::kernels::cuda::testing
