// Narrow products: few rows of x, as decoding has them, at the speed at which memory gives the
// weights. Used by linear.cc, which gives all others to cuBLASLt (blas_lt.h). A struct of pointers
// and numbers alone, so that it is built and checked with nothing but CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/element_kind.h"

namespace lamina::kernels::cuda {

inline constexpr int64_t kMaxNarrowTokens = 64;

// out[t, n] = sum over k of x[t, k] weight[n, k], + bias[n].  x [T, K], weight [N, K] and bias [N],
// which may be null, of `element`; out [T, N] of out_element, which is the same or kF32. Sums and
// bias are added in f32. Strides are elements between rows. The queue is the stream's:
// kNarrowQueueBytes, zeros before its first launch, each of which leaves them so.
struct NarrowProduct {
  const void* x;
  const void* weight;
  const void* bias;
  void* out;
  int32_t* queue;
  ElementKind element;
  ElementKind out_element;
  int64_t num_tokens;  // T
  int64_t width;       // N
  int64_t depth;       // K
  int64_t x_stride;
  int64_t weight_stride;
  int64_t out_stride;
};

inline constexpr size_t kNarrowQueueBytes = 2 * sizeof(int32_t);

// Whether there is a kernel for it: 16-bit elements, 1 to kMaxNarrowTokens rows, all rows of x and
// weight at multiples of 16 bytes and of as many.
[[nodiscard]] bool takes_narrow_product(const NarrowProduct& product);

// Of a product that is taken, whether it is no slower than cuBLASLt's on the current device. A card
// that cannot be asked has an error at the launch.
[[nodiscard]] bool is_fast_as_narrow(const NarrowProduct& product);

// Enqueues on a stream of the current device; may be captured. The order of sums depends on N, K,
// the card and into which of 8, 16, 32, 64 the number of rows fits, and on nothing else: equal
// products have equal bits. From Hopper on, the kernel may begin to read weights while the one
// before it on the stream still runs, so nothing that writes a weight may precede it directly.
// A launch that fails is the error it returns; cudaErrorInvalidValue for a product not taken.
[[nodiscard]] cudaError_t launch_narrow_product(const NarrowProduct& product, cudaStream_t stream);

}  // namespace lamina::kernels::cuda
