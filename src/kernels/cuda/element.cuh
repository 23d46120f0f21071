// Float elements in kernels: conversions to f32 and back. Device code only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/element_kind.h"

namespace lamina::kernels::cuda {

__device__ inline float to_float(float value) {
  return value;
}
__device__ inline float to_float(__half value) {
  return __half2float(value);
}
__device__ inline float to_float(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

// Rounds to nearest even.
template <typename Element>
__device__ Element from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Element `i` of memory of that kind.
__device__ inline float load_float(const void* data, ElementKind kind, int64_t i) {
  switch (kind) {
    case ElementKind::kF32:
      return static_cast<const float*>(data)[i];
    case ElementKind::kF16:
      return to_float(static_cast<const __half*>(data)[i]);
    case ElementKind::kBF16:
      return to_float(static_cast<const __nv_bfloat16*>(data)[i]);
  }
  return 0.0F;
}

}  // namespace lamina::kernels::cuda
