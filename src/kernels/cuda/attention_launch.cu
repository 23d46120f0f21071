#include <algorithm>
#include <mutex>
#include <utility>

#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/cuda/attention_launch.h"

// What heads there are kernels for: use(head_dim) for each.
#define LAMINA_HEAD_DIMS(use) use(64) use(80) use(96) use(128) use(192) use(256)

namespace lamina::kernels::cuda {
namespace {

constexpr int kMaxDevices = 64;

struct Card {
  int device = 0;
  int num_sms = 0;
  int block_shared_bytes = 0;  // at most
  int sm_shared_bytes = 0;     // at most, of all blocks together
  bool is_hopper = false;      // or later
};

cudaError_t read_card(Card& card) {
  int major = 0;
  const std::pair<int*, cudaDeviceAttr> wanted[] = {
      {&card.num_sms, cudaDevAttrMultiProcessorCount},
      {&card.block_shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin},
      {&card.sm_shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor},
      {&major, cudaDevAttrComputeCapabilityMajor}};
  for (const auto& [value, attribute] : wanted) {
    const cudaError_t error = cudaDeviceGetAttribute(value, attribute, card.device);
    if (error != cudaSuccess) return error;
  }
  card.is_hopper = major >= 9;
  return cudaSuccess;
}

struct Grid {
  int num_blocks = 0;
  int num_threads = 0;  // of a block
  int shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool is_early = false;  // may begin before the kernel before it has ended, for which it waits
};

cudaError_t start(void (*kernel)(AttentionParams),
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
  config.numAttrs = grid.is_early ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, params);
}

// How a kernel runs on a card: found out at its first launch there.
struct Plan {
  bool is_made = false;
  int num_stages = 0;
  Grid attention;
  Grid merge;
};

template <typename Traits>
constexpr int kHeadBytes = static_cast<int>(sizeof(typename Traits::Shared));

// How many tiles fit into a block's shared memory.
template <typename Traits>
int count_stages(const Card& card) {
  constexpr int kReservedBytes = 1024;  // the system's, of each block
  const int room = std::min(card.block_shared_bytes,
                            card.sm_shared_bytes / Traits::kBlocksPerSm - kReservedBytes);
  return std::min(kMaxStages, (room - kHeadBytes<Traits>) / Traits::kTileBytes);
}

template <typename Traits>
cudaError_t make_plan(int device, Plan& plan) {
  Card card{.device = device};
  const cudaError_t error = read_card(card);
  if (error != cudaSuccess) return error;
  constexpr int kMergeBlocksPerSm = 4;
  plan.num_stages = count_stages<Traits>(card);
  if (plan.num_stages < Traits::kFewestStages) return cudaErrorInvalidConfiguration;
  plan.attention = {.num_blocks = card.num_sms * Traits::kBlocksPerSm,
                    .num_threads = Traits::kThreads,
                    .shared_bytes = kHeadBytes<Traits> + plan.num_stages * Traits::kTileBytes};
  plan.merge = {.num_blocks = card.num_sms * kMergeBlocksPerSm,
                .num_threads = kMergeWarps * 32,
                .is_early = card.is_hopper};
  const cudaError_t set = cudaFuncSetAttribute(attention_kernel<Traits>,
                                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               plan.attention.shared_bytes);
  plan.is_made = set == cudaSuccess;
  return set;
}

template <typename Traits>
cudaError_t find_plan(Plan& plan) {
  static std::mutex mutex;
  static Plan plans[kMaxDevices];
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  if (device >= kMaxDevices) return cudaErrorInvalidDevice;
  const std::lock_guard lock(mutex);
  if (!plans[device].is_made) error = make_plan<Traits>(device, plans[device]);
  plan = plans[device];
  return error;
}

template <typename Traits>
cudaError_t launch(AttentionParams params, cudaStream_t stream) {
  Plan plan;
  cudaError_t error = find_plan<Traits>(plan);
  if (error != cudaSuccess) return error;
  params.num_stages = plan.num_stages;
  plan.attention.stream = stream;
  error = start(attention_kernel<Traits>, plan.attention, params);
  if (error != cudaSuccess || params.items.merges == nullptr) return error;
  plan.merge.stream = stream;
  return start(merge_kernel<Traits>, plan.merge, params);
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
    LAMINA_HEAD_DIMS(LAMINA_HEAD_DIM)
#undef LAMINA_HEAD_DIM
    case kLatentKeyDim:
      return is_wide ? launch<LatentTraits<Element, kWideRows>>(params, stream)
                     : launch<LatentTraits<Element, kNarrowRows>>(params, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

bool has_attention_kernel(int32_t head_dim) {
#define LAMINA_IS_HEAD_DIM(dim) || head_dim == dim
  return false LAMINA_HEAD_DIMS(LAMINA_IS_HEAD_DIM);
#undef LAMINA_IS_HEAD_DIM
}

bool has_latent_kernel(int32_t key_dim, int device) {
  if (key_dim != kLatentKeyDim) return false;
  using Widest = LatentTraits<__nv_bfloat16, kWideRows>;
  Card card{.device = device};
  return read_card(card) == cudaSuccess && count_stages<Widest>(card) >= Widest::kFewestStages;
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
