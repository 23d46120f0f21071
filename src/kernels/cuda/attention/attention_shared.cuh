// What the roles of the attention kernel share: sizes, shared memory, and the work of a launch.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention/attention_params.h"
#include "kernels/cuda/attention/swizzle.cuh"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {

inline constexpr float kLog2e = 1.4426950408889634F;
inline constexpr float kLn2 = 0.6931471805599453F;

template <typename Traits>
struct AttentionShared;
template <typename Traits>
class AttentionMultiplier;

// Element: of queries, weights and products. Cached: the same, or a code.
template <typename ElementType, int kHeadDim, int kItemRows, typename CachedType = ElementType>
struct AttentionTraits {
  using Element = ElementType;
  using Cached = CachedType;
  using Shared = AttentionShared<AttentionTraits>;
  using Multiplier = AttentionMultiplier<AttentionTraits>;
  using Uncoded = AttentionTraits<Element, kHeadDim, kItemRows>;  // for results, which are the same
  static constexpr bool kIsCoded = !std::is_same_v<Cached, Element>;
  static constexpr int kDim = kHeadDim;
  static constexpr int kValueDim = kHeadDim;
  static constexpr int kRows = kItemRows;
  static constexpr int kComputeWarps = 4;
  static constexpr int kComputeThreads = kComputeWarps * 32;
  static constexpr int kTileKeys = cuda::kTileKeys;
  static constexpr bool kValuesInKeys = false;
  static constexpr uint64_t kKeysPolicy = kEvictFirst;
  static constexpr int kQuerySlots = 2;    // of the item at hand and of the next one
  static constexpr int kFewestStages = 2;  // keys and their values
  static constexpr int kRowWarps = kRows / 16;
  static constexpr int kKeyWarps = kComputeWarps / kRowWarps;
  static constexpr int kWarpKeys = kTileKeys / kKeyWarps;
  static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(Cached));
  static constexpr int kTileBytes = kTileKeys * kRowBytes;
  static constexpr int kScaleBytes = kIsCoded ? static_cast<int>(sizeof(float)) : 0;  // of a row
  static constexpr int kStageBytes = kTileBytes + kTileKeys * kScaleBytes;
  static constexpr int kQueryBytes = kDim * static_cast<int>(sizeof(Element));
  // Rows of queries and of sums start in different banks.
  static constexpr int kQueryStride = kQueryBytes + 16;
  static constexpr int kSumStride = kDim + 4;
  // Warps with keys of their own add up in shared memory what they have, and one more warp takes it
  // from there, so that they need not wait for global memory.
  static constexpr bool kHasFinisher = kKeyWarps > 1;
  static constexpr int kThreads = kComputeThreads + (kHasFinisher ? 64 : 32);
  // Several blocks of a multiprocessor hide each other's waits; tiles of wide heads leave room for
  // one.
  static constexpr int kBlocksPerSm = kDim <= 128 ? 2 : 1;
  static_assert(kDim % 16 == 0 && kRowWarps * kKeyWarps == kComputeWarps);
};

// An item for one KV head.
struct alignas(16) Work {
  AttentionItem item;
  int32_t head;

  [[nodiscard]] __device__ bool is_end() const { return item.num_rows == 0; }
  __device__ static Work end() { return {}; }
};

// What the loader fills, apart from the tiles.
template <typename Traits>
struct AttentionIntake {
  alignas(16) unsigned char queries[Traits::kQuerySlots][Traits::kRows][Traits::kQueryStride];
  Work loaded[Traits::kQuerySlots];  // comes with the queries
  Barrier full[kMaxStages];
  Barrier empty[kMaxStages];
  Barrier queries_full[Traits::kQuerySlots];
  Barrier queries_empty[Traits::kQuerySlots];
  uint32_t missing[kMaxStages];  // with keys; bit c: block c of the tile is not here

  // By one thread, before any role begins.
  __device__ void init_barriers(int num_stages) {
#if __CUDA_ARCH__ >= 900
    constexpr uint32_t kLoaders = 1;
#else
    constexpr uint32_t kLoaders = 33;  // each lane's copies, and what one of them has written
#endif
    for (int i = 0; i < num_stages; ++i) {
      full[i].init(kLoaders);
      empty[i].init(Traits::kComputeThreads);
    }
    for (int i = 0; i < Traits::kQuerySlots; ++i) {
      queries_full[i].init(kLoaders);
      queries_empty[i].init(Traits::kComputeThreads);
    }
    fence_before_bulk_copies();
  }
};

// Shared memory: this, then params.num_stages tiles, each with its scales: keys, their values, the
// next keys and so on.
template <typename Traits>
struct alignas(128) AttentionShared : AttentionIntake<Traits> {
  // Of the warps with keys of their own together.
  alignas(16) float sums[Traits::kHasFinisher ? 16 : 1][Traits::kSumStride];
  // Of each of them: greatest score and sum of weights of its rows.
  float maxima[Traits::kKeyWarps][16];
  float totals[Traits::kKeyWarps][16];
  Barrier sums_full;
  Barrier sums_empty;
  Work summed;  // comes with the sums

  __device__ unsigned char* tile(int stage) {
    return reinterpret_cast<unsigned char*>(this + 1) + stage * Traits::kStageBytes;
  }
  __device__ float* scales(int stage) {
    return reinterpret_cast<float*>(tile(stage) + Traits::kTileBytes);
  }

  // The greatest of all warps' scores of a row, or 0 if none saw a key.
  __device__ float greatest_base(int row) const {
    float greatest = -INFINITY;
#pragma unroll
    for (int warp = 0; warp < Traits::kKeyWarps; ++warp) {
      greatest = fmaxf(greatest, maxima[warp][row]);
    }
    return greatest == -INFINITY ? 0.0F : greatest;
  }

  // By one thread, before any role begins.
  __device__ void init_barriers(int num_stages) {
    sums_full.init(Traits::kComputeThreads);
    sums_empty.init(32);
    AttentionIntake<Traits>::init_barriers(num_stages);
  }
};

// Deals the work of a launch out to its blocks, to whoever is ready: some multiprocessors get less
// of the memory's bandwidth than others. For one warp of each block.
class WorkQueue {
 public:
  __device__ explicit WorkQueue(const AttentionParams& params)
      : params_(params), count_(*params.items.num_items * params.num_kv_heads) {}

  // The first piece, which needs nothing of the kernel before. It is asked for together with the
  // number of items, whatever that is.
  __device__ Work first() const {
    const int item = static_cast<int>(blockIdx.x) / params_.num_kv_heads;
    const Work work = load(min(item, params_.items.capacity - 1), blockIdx.x);
    return static_cast<int>(blockIdx.x) < count_ ? work : Work::end();
  }

  // Asks for the next piece, unless that has been done; not before the kernel before has ended,
  // whose queue this was.
  __device__ void ask() {
    if (has_asked_) return;
    has_asked_ = true;
    if (threadIdx.x % 32 == 0) next_ = atomicAdd(params_.progress, 1) + gridDim.x;
  }

  // The piece asked for, or the end, after which there is nothing to ask for. It is on its way when
  // this returns: whoever uses it late does not wait.
  __device__ Work take() {
    has_asked_ = false;
    return find(__shfl_sync(~0U, next_, 0));
  }

  // The last block to leave puts everything back for the next launch.
  __device__ void leave() const {
    if (threadIdx.x % 32 != 0) return;
    if (atomicAdd(params_.progress + 1, 1) != gridDim.x - 1) return;
    params_.progress[0] = 0;
    params_.progress[1] = 0;
  }

 private:
  __device__ Work find(int idx) const {
    return idx < count_ ? load(idx / params_.num_kv_heads, idx) : Work::end();
  }
  __device__ Work load(int item, int idx) const {
    Work work;
    const auto* from = reinterpret_cast<const int4*>(params_.items.items + item);
    auto* to = reinterpret_cast<int4*>(&work.item);
#pragma unroll
    for (int i = 0; i < 3; ++i) to[i] = __ldg(from + i);
    work.head = idx % params_.num_kv_heads;
    return work;
  }

  const AttentionParams& params_;
  const int count_;
  int next_ = 0;  // of the first lane alone
  bool has_asked_ = false;
};

// Whose query a row is.
struct QueryPlace {
  int64_t token;  // of the step
  int head;
};
__device__ inline QueryPlace query_place(const AttentionParams& params, const Work& work, int row) {
  const int group = params.num_heads / params.num_kv_heads;
  const int of_sequence = work.item.row_begin + row;
  return {work.item.first_token + of_sequence / group, work.head * group + of_sequence % group};
}

}  // namespace lamina::kernels::cuda
