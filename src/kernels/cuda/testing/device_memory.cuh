// Helpers of the CUDA kernels' own tests and benchmarks, which are built with nothing but CUDA:
// device memory, random numbers in it, errors that end the program.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

namespace lamina::kernels::cuda::testing {

inline void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(2);
}
#define LAMINA_REQUIRE_CUDA(call) ::lamina::kernels::cuda::testing::require((call), #call)

// Move-only owner of `size` elements in device memory.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(size_t size) : size_(size) {
    if (size > 0) LAMINA_REQUIRE_CUDA(cudaMalloc(&data_, size * sizeof(T)));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    if (size_ == 0) return;
    LAMINA_REQUIRE_CUDA(
        cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] size_t size() const { return size_; }
  void fill_bytes(int byte) const {
    if (size_ > 0) LAMINA_REQUIRE_CUDA(cudaMemset(data_, byte, size_ * sizeof(T)));
  }
  [[nodiscard]] std::vector<T> to_host() const {
    std::vector<T> values(size_);
    if (size_ > 0) {
      LAMINA_REQUIRE_CUDA(
          cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    }
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// A number in [-1, 1) from a seed and an index.
__host__ __device__ inline float random_value(uint64_t seed, uint64_t index) {
  uint64_t x = (seed << 40) + index + 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  x ^= x >> 31;
  return static_cast<float>(x >> 40) * (2.0F / 16777216.0F) - 1.0F;
}

template <typename T>
__global__ void fill_random_kernel(T* data, size_t size, uint64_t seed) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    data[i] = static_cast<T>(random_value(seed, i));
  }
}

template <typename T>
void fill_random(const DeviceArray<T>& array, uint64_t seed) {
  fill_random_kernel<<<1024, 256>>>(array.data(), array.size(), seed);
  LAMINA_REQUIRE_CUDA(cudaGetLastError());
}

}  // namespace lamina::kernels::cuda::testing
