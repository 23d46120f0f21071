#include <algorithm>

#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/cuda/attention_launch.h"

namespace lamina::kernels::cuda {
namespace {

struct Card {
  int num_sms = 0;
  int block_shared_bytes = 0;  // at most
  int sm_shared_bytes = 0;     // at most, of all blocks together
  bool is_hopper = false;      // or later

  cudaError_t read() {
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
      error = cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device);
    }
    if (error == cudaSuccess) {
      error = cudaDeviceGetAttribute(
          &block_shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    }
    if (error == cudaSuccess) {
      error = cudaDeviceGetAttribute(
          &sm_shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
    }
    int major = 0;
    if (error == cudaSuccess) {
      error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    }
    is_hopper = major >= 9;
    return error;
  }
};

struct Grid {
  int num_blocks = 0;
  int num_threads = 0;  // of a block
  int shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool is_early = false;  // may begin before the kernel before it has ended, for which it waits
};

cudaError_t start(void (*kernel)(AttentionParams),
                  const Card& card,
                  const Grid& grid,
                  const AttentionParams& params) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.num_blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.num_threads));
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared_bytes);
  config.stream = grid.stream;
  config.attrs = &early;
  config.numAttrs = grid.is_early && card.is_hopper ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, params);
}

template <typename Traits>
cudaError_t launch(AttentionParams params, cudaStream_t stream) {
  Card card;
  cudaError_t error = card.read();
  if (error != cudaSuccess) return error;
  constexpr int kHeadBytes = static_cast<int>(sizeof(AttentionShared<Traits>));
  constexpr int kReservedBytes = 1024;  // the system's, of each block
  const int room = std::min(card.block_shared_bytes,
                            card.sm_shared_bytes / Traits::kBlocksPerSm - kReservedBytes);
  params.num_stages = std::min(kMaxStages, (room - kHeadBytes) / Traits::kTileBytes);
  const int bytes = kHeadBytes + params.num_stages * Traits::kTileBytes;
  error = cudaFuncSetAttribute(
      attention_kernel<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  error = start(attention_kernel<Traits>,
                card,
                {card.num_sms * Traits::kBlocksPerSm, Traits::kThreads, bytes, stream, false},
                params);
  if (error != cudaSuccess || params.items.merges == nullptr) return error;
  constexpr int kMergeBlocksPerSm = 4;
  return start(merge_kernel<Traits>,
               card,
               {card.num_sms * kMergeBlocksPerSm, kMergeWarps * 32, 0, stream, true},
               params);
}

template <typename Element>
cudaError_t launch_for(const AttentionParams& params,
                       int32_t head_dim,
                       bool is_wide,
                       cudaStream_t stream) {
  switch (head_dim) {
#define LAMINA_HEAD_DIM(dim)                                                          \
  case dim:                                                                           \
    return is_wide ? launch<AttentionTraits<Element, dim, kWideRows>>(params, stream) \
                   : launch<AttentionTraits<Element, dim, kNarrowRows>>(params, stream);
    LAMINA_HEAD_DIM(64)
    LAMINA_HEAD_DIM(80)
    LAMINA_HEAD_DIM(96)
    LAMINA_HEAD_DIM(128)
    LAMINA_HEAD_DIM(192)
    LAMINA_HEAD_DIM(256)
#undef LAMINA_HEAD_DIM
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

bool has_attention_kernel(int32_t head_dim) {
  return head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128 || head_dim == 192 ||
         head_dim == 256;
}

cudaError_t launch_attention(AttentionParams params,
                             Element16 element,
                             int32_t head_dim,
                             bool is_wide,
                             cudaStream_t stream) {
  switch (element) {
    case Element16::kBF16:
      return launch_for<__nv_bfloat16>(params, head_dim, is_wide, stream);
    case Element16::kF16:
      return launch_for<__half>(params, head_dim, is_wide, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace lamina::kernels::cuda
