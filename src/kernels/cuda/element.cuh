// What the row-wise operators share: elements of f32, f16 and bf16 as f32, moved 16 bytes at a time
// where addresses allow; grids over rows and columns; the dispatch on dtypes. Not for attention and
// products, which compute on elements as they are.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>

#include "base/checked_math.h"
#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "kernels/cuda/element_kind.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::cuda {

inline constexpr int kWarpLanes = 32;
inline constexpr int kVectorBytes = 16;

// Elements of a vector: what a thread computes at a time, also where it moves them one by one. So
// results do not depend on alignment.
template <typename T>
inline constexpr int kVectorElements = kVectorBytes / static_cast<int>(sizeof(T));

__device__ inline float widen(float value) {
  return value;
}
__device__ inline float widen(__half value) {
  return __half2float(value);
}
__device__ inline float widen(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

// Rounds to nearest even.
template <typename T>
__device__ T narrow(float value);
template <>
__device__ inline float narrow<float>(float value) {
  return value;
}
template <>
__device__ inline __half narrow<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Element `i` of memory of that kind.
__device__ inline float load_float(const void* data, ElementKind kind, int64_t i) {
  switch (kind) {
    case ElementKind::kF32:
      return static_cast<const float*>(data)[i];
    case ElementKind::kF16:
      return widen(static_cast<const __half*>(data)[i]);
    case ElementKind::kBF16:
      return widen(static_cast<const __nv_bfloat16*>(data)[i]);
  }
  return 0.0F;
}

// What is moved at a time of `kBytes`, a multiple of 16, or 8.
template <int kBytes>
struct WordOf {
  static_assert(kBytes % kVectorBytes == 0);
  using Type = uint4;
};
template <>
struct WordOf<8> {
  using Type = uint2;
};

// Of kCount elements the first `left`, zeros after them. `is_aligned`: `from` is, to their size or
// to 16 bytes.
template <typename T, int kCount>
__device__ inline void load_upto(const T* from,
                                 int64_t left,
                                 bool is_aligned,
                                 float (&to)[kCount]) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  using Word = typename WordOf<kBytes>::Type;
  if (is_aligned && left >= kCount) {
    alignas(kVectorBytes) T elements[kCount];
#pragma unroll
    for (int i = 0; i < kBytes / static_cast<int>(sizeof(Word)); ++i) {
      reinterpret_cast<Word*>(elements)[i] = reinterpret_cast<const Word*>(from)[i];
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = widen(elements[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = i < left ? widen(from[i]) : 0.0F;
}

// Rounds to T and writes the first `left`.
template <typename T, int kCount>
__device__ inline void store_upto(const float (&from)[kCount],
                                  T* to,
                                  int64_t left,
                                  bool is_aligned) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  using Word = typename WordOf<kBytes>::Type;
  if (is_aligned && left >= kCount) {
    alignas(kVectorBytes) T elements[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) elements[i] = narrow<T>(from[i]);
#pragma unroll
    for (int i = 0; i < kBytes / static_cast<int>(sizeof(Word)); ++i) {
      reinterpret_cast<Word*>(to)[i] = reinterpret_cast<const Word*>(elements)[i];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < left) to[i] = narrow<T>(from[i]);
  }
}

// Whether each of `num_rows` rows of `view` begins at a multiple of 16 bytes.
inline bool has_aligned_rows(const TensorView& view, int64_t num_rows) {
  const auto bytes = static_cast<int64_t>(dtype_bytes(view.dtype));
  return reinterpret_cast<uintptr_t>(view.data) % kVectorBytes == 0 &&
         (num_rows <= 1 || view.row_stride * bytes % kVectorBytes == 0);
}

// A launch with a thread for each column of each row; rows are fewer than that where there are very
// many: kernels loop over them from first_row() by row_step(). Neither number is zero.
struct RowGrid {
  RowGrid(int64_t num_rows, int64_t num_columns) {
    constexpr int64_t kThreads = 256;
    constexpr int64_t kMaxGridY = 65535;  // CUDA's
    const int64_t width = num_rows > 1 ? kWarpLanes : kThreads;
    const auto power_of_two_from = [](int64_t count) {
      return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(count)));
    };
    const int64_t x = power_of_two_from(std::min(num_columns, width));
    const int64_t y = power_of_two_from(std::min(num_rows, kThreads / x));
    block = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
    grid = dim3(static_cast<unsigned>(ceil_div(num_columns, x)),
                static_cast<unsigned>(std::min(ceil_div(num_rows, y), kMaxGridY)));
  }

  dim3 grid;
  dim3 block;
};

__device__ inline int64_t column() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t first_row() {
  return static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
}
__device__ inline int64_t row_step() {
  return static_cast<int64_t>(gridDim.y) * blockDim.y;
}

// Calls body.operator()<T>() with the element type of `dtype`, one of the floats.
template <typename Body>
Status with_element(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kF32:
      return body.template operator()<float>();
    case DType::kF16:
      return body.template operator()<__half>();
    case DType::kBF16:
      return body.template operator()<__nv_bfloat16>();
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  return internal_error("a row-wise operator on a dtype that is no float");
}

}  // namespace lamina::kernels::cuda
