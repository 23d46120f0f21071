// How an attention kernel is fitted to a card and started, with its merge: what the files share
// that hold the kernels themselves.
#pragma once

#include <algorithm>

#include "kernels/cuda/attention/attention_kernel.cuh"
#include "kernels/cuda/card.h"
#include "kernels/cuda/launch.cuh"

// What heads there are kernels for: use(head_dim) for each.
#define LAMINA_HEAD_DIMS(use) use(64) use(80) use(96) use(128) use(192) use(256)

namespace lamina::kernels::cuda {

// How a kernel runs on a card: found out at its first launch there.
struct Plan {
  int num_stages = 0;
  int num_blocks = 0;
  int shared_bytes = 0;  // of a block
  int num_merge_blocks = 0;
};

template <typename Traits>
constexpr int kHeadBytes = static_cast<int>(sizeof(typename Traits::Shared));

// How many tiles fit into a block's shared memory.
template <typename Traits>
int count_stages(const Card& card) {
  constexpr int kReservedBytes = 1024;  // the system's, of each block
  const int room = std::min(card.block_shared_bytes,
                            card.sm_shared_bytes / Traits::kBlocksPerSm - kReservedBytes);
  return std::min(kMaxStages, (room - kHeadBytes<Traits>) / Traits::kStageBytes);
}

template <typename Traits>
cudaError_t make_plan(const Card& card, Plan& plan) {
  constexpr int kMergeBlocksPerSm = 16;
  plan.num_stages = count_stages<Traits>(card);
  if (plan.num_stages < Traits::kFewestStages) return cudaErrorInvalidConfiguration;
  plan.num_blocks = card.num_sms * Traits::kBlocksPerSm;
  plan.shared_bytes = kHeadBytes<Traits> + plan.num_stages * Traits::kStageBytes;
  plan.num_merge_blocks = card.num_sms * kMergeBlocksPerSm;
  return cudaFuncSetAttribute(
      attention_kernel<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes);
}

template <typename Traits>
cudaError_t launch_with(AttentionParams params, cudaStream_t stream) {
  static OfDevices<Plan> plans;
  Plan plan;
  cudaError_t error = plans.find(make_plan<Traits>, plan);
  if (error != cudaSuccess) return error;
  params.num_stages = plan.num_stages;
  error = launch(attention_kernel<Traits>,
                 {dim3(static_cast<unsigned>(plan.num_blocks)),
                  dim3(Traits::kThreads),
                  stream,
                  plan.shared_bytes},
                 params);
  if (error != cudaSuccess || params.items.merges == nullptr) return error;
  const int64_t rows = int64_t{params.most_merges} * params.num_kv_heads * params.merged_rows;
  const int64_t num_blocks =
      std::min<int64_t>(plan.num_merge_blocks, (rows + kMergeWarps - 1) / kMergeWarps);
  return launch(merge_kernel<typename Traits::Uncoded>,
                {dim3(static_cast<unsigned>(num_blocks)), dim3(kMergeWarps * 32), stream},
                params);
}

// Queries of Element over a cache of Cached.
template <typename Element, typename Cached = Element>
cudaError_t launch_for(const AttentionParams& params,
                       int32_t head_dim,
                       bool is_wide,
                       cudaStream_t stream) {
  switch (head_dim) {
#define LAMINA_HEAD_DIM(dim)                                                                   \
  case dim:                                                                                    \
    return is_wide                                                                             \
               ? launch_with<AttentionTraits<Element, dim, kWideRows, Cached>>(params, stream) \
               : launch_with<AttentionTraits<Element, dim, kNarrowRows, Cached>>(params, stream);
    LAMINA_HEAD_DIMS(LAMINA_HEAD_DIM)
#undef LAMINA_HEAD_DIM
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace lamina::kernels::cuda
