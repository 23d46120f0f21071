// Routing of tokens to experts on CUDA. One launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/element_kind.h"

namespace lamina::kernels::cuda {

// RouteAttrs, with views as pointers. Rows are `*_stride` elements apart.
struct RouteParams {
  const float* logits;  // [T, X]
  const void* bias;     // [X] of bias_element, or null
  float* out;           // [T, X]
  ElementKind bias_element;
  int64_t logits_stride;
  int64_t out_stride;
  int64_t num_tokens;
  int32_t num_experts;
  int32_t top_k;
  int32_t num_groups;
  int32_t top_groups;
  bool is_softmax;  // or sigmoid
  bool renormalize;
  float scale;
};

// A row's scores have to fit in a block's shared memory.
inline constexpr int32_t kMaxRoutedExperts = 4096;

[[nodiscard]] cudaError_t launch_route(const RouteParams& params, cudaStream_t stream);

}  // namespace lamina::kernels::cuda
