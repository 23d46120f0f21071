// Ragged paged attention for queries of 16 bits: a persistent kernel over a list of items. One warp
// copies tiles of keys and values to shared memory, several stages ahead and across the bounds of
// items; others multiply; where warps share an item's rows, one more takes their sums. Each key and
// value is read from memory once for all rows of an item, which decoding makes a group of heads:
// m16 tiles, so that groups of 1 to 16 cost the same.
//
// Narrow items (16 rows): each warp has its own keys of a tile, and the warps' sums are added at
// the end of the item. Wide items: each warp has its own rows. Latent keys: attention_latent.cuh.
#pragma once

#include "kernels/cuda/attention/attention_latent.cuh"
#include "kernels/cuda/attention/attention_loader.cuh"
#include "kernels/cuda/attention/attention_multiplier.cuh"
#include "kernels/cuda/attention/attention_results.cuh"

namespace lamina::kernels::cuda {

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    attention_kernel(const __grid_constant__ AttentionParams params) {
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  auto& shared = *reinterpret_cast<typename Traits::Shared*>(shared_bytes);
  const int warp = threadIdx.x / 32;
  if (warp == Traits::kComputeWarps) {
    AttentionLoader<Traits> loader(params, shared);  // finds its first item meanwhile
    __syncthreads();
    loader.run();
    return;
  }
  if (threadIdx.x == 0) shared.init_barriers(params.num_stages);
  __syncthreads();
  if (warp < Traits::kComputeWarps) {
    typename Traits::Multiplier(params, shared).run();
  } else if constexpr (Traits::kHasFinisher) {
    AttentionFinisher<Traits>(params, shared).run();
  }
}

// Few, so that a block fits beside those of the attention kernel, and waits there for its end.
inline constexpr int kMergeWarps = 2;

// A warp for each row that has partials.
template <typename Traits>
__global__ void __launch_bounds__(kMergeWarps * 32, 16)
    merge_kernel(const __grid_constant__ AttentionParams params) {
  allow_next_kernel();
  const ResultWriter<Traits> writer(params);
  const int count = *params.items.num_merges * params.num_kv_heads * params.merged_rows;
  const int step = static_cast<int>(gridDim.x) * kMergeWarps;
  // The step's tables have been there since before the attention kernel.
  const auto find = [&](int i) -> Work {
    const int set = i / params.merged_rows / params.num_kv_heads;
    return {params.items.merges[set], i / params.merged_rows % params.num_kv_heads};
  };
  int i = static_cast<int>(blockIdx.x) * kMergeWarps + static_cast<int>(threadIdx.x) / 32;
  Work work = i < count ? find(i) : Work::end();
  wait_for_previous_kernel();
  while (i < count) {
    const int row = i % params.merged_rows;
    if (row < work.item.num_rows) writer.merge_row(work, row);
    i += step;
    if (i < count) work = find(i);
  }
}

}  // namespace lamina::kernels::cuda
