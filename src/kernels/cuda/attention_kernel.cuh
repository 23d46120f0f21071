// Ragged paged attention for queries of 16 bits: a persistent kernel over a list of items. One warp
// copies tiles of keys and values to shared memory, several stages ahead and across the bounds of
// items; others multiply; where warps share an item's rows, one more takes their sums. Each key and
// value is read from memory once for all rows of an item, which decoding makes a group of heads:
// m16 tiles, so that groups of 1 to 16 cost the same.
//
// Narrow items (16 rows): each warp has its own keys of a tile, and the warps' sums are added at
// the end of the item. Wide items: each warp has its own rows. Latent keys: attention_latent.cuh.
#pragma once

#include "kernels/cuda/attention_latent.cuh"
#include "kernels/cuda/attention_loader.cuh"
#include "kernels/cuda/attention_multiplier.cuh"
#include "kernels/cuda/attention_results.cuh"

namespace lamina::kernels::cuda {

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    attention_kernel(const __grid_constant__ AttentionParams params) {
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  auto& shared = *reinterpret_cast<typename Traits::Shared*>(shared_bytes);
  if (threadIdx.x == 0) shared.init_barriers(params.num_stages);
  allow_next_kernel();
  __syncthreads();
  const int warp = threadIdx.x / 32;
  if (warp < Traits::kComputeWarps) {
    typename Traits::Multiplier(params, shared).run();
  } else if (warp == Traits::kComputeWarps) {
    AttentionLoader<Traits>(params, shared).run();
  } else if constexpr (Traits::kHasFinisher) {
    AttentionFinisher<Traits>(params, shared).run();
  }
}

inline constexpr int kMergeWarps = 4;

// A warp for each row that has partials.
template <typename Traits>
__global__ void __launch_bounds__(kMergeWarps * 32)
    merge_kernel(const __grid_constant__ AttentionParams params) {
  const ResultWriter<Traits> writer(params);
  wait_for_previous_kernel();
  const int count = *params.items.num_merges * params.num_kv_heads * params.merged_rows;
  for (int i = blockIdx.x * kMergeWarps + threadIdx.x / 32; i < count;
       i += gridDim.x * kMergeWarps) {
    const int set = i / params.merged_rows / params.num_kv_heads;
    const Work work = {params.items.merges[set], i / params.merged_rows % params.num_kv_heads};
    const int row = i % params.merged_rows;
    if (row < work.item.num_rows) writer.merge_row(work, row);
  }
}

}  // namespace lamina::kernels::cuda
