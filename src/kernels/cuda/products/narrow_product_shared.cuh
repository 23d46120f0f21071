// What the roles of the kernel of narrow products share: sizes, shared memory, its parameters.
//
// A tile is some rows of the weight with all their columns, and a block's work: so nothing has to
// be added up between blocks. A stage holds a chunk of its columns, and the same columns of x. Four
// warps multiply: each has 16 of the tile's rows, and of the chunk's columns those of its group.
#pragma once

#include <algorithm>

#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/products/narrow_product.h"

namespace lamina::kernels::cuda {

inline constexpr int kNarrowWarps = 4;
inline constexpr int kNarrowThreads = (kNarrowWarps + 1) * 32;
inline constexpr int kMaxNarrowStages = 16;
inline constexpr int kWarpRows = 16;

// What is copied at once: 128 bytes of each of some rows. In shared memory they lie one below the
// other, their chunks of 16 bytes swizzled over the banks: chunk c of row r at c ^ r % 8, as the
// tensor copy's 128-byte mode has it, which wants boxes to begin at multiples of eight rows.
inline constexpr int kBoxColumns = 64;
inline constexpr int kBoxRowBytes = 128;
inline constexpr int kBoxAlignment = 8 * kBoxRowBytes;

// Each tile reads all of x from the L2 cache: many rows keep that small beside the weights, few
// rows give all multiprocessors the same work.
template <typename ElementType, int kMaxTokens, int kRowGroupCount>
struct NarrowTraits {
  using Element = ElementType;
  static constexpr int kTokens = kMaxTokens;
  static constexpr int kTokenTiles = kTokens / 8;
  static constexpr int kRowGroups = kRowGroupCount;
  static constexpr int kColumnGroups = kNarrowWarps / kRowGroups;
  static constexpr int kTileRows = kRowGroups * kWarpRows;
  static constexpr int kWarpBoxes = kTokens > std::min(32, kRowGroups * 16) ? 2 : 4;
  static constexpr int kBoxes = kWarpBoxes * kColumnGroups;  // of a chunk
  static constexpr int kChunk = kBoxes * kBoxColumns;
  static constexpr int kWeightBytes = kTileRows * kBoxRowBytes;  // of a box
  static constexpr int kInputBytes = kTokens * kBoxRowBytes;
  static constexpr int kStageBytes = kBoxes * (kWeightBytes + kInputBytes);
  static_assert(sizeof(Element) * kBoxColumns == kBoxRowBytes && kTokens % 8 == 0);
};

struct NarrowParams {
  // How the tensor copy finds boxes; not used before Hopper.
  CUtensorMap weight_map;
  CUtensorMap x_map;
  NarrowProduct product;
  int32_t num_tiles;
  int32_t num_chunks;  // of a tile
  int32_t num_stages;
};

// What comes with a stage.
struct NarrowChunk {
  int32_t tile;  // or -1: no more
  bool is_last;  // of its tile
};

// Shared memory: this, then params.num_stages stages.
template <typename Traits>
struct alignas(kBoxAlignment) NarrowShared {
  // Sums of a tile's other column groups, as the warps' fragments have them; of two tiles in turn.
  float4 sums[2][Traits::kRowGroups][Traits::kColumnGroups][Traits::kTokenTiles][32];
  Barrier full[kMaxNarrowStages];
  Barrier empty[kMaxNarrowStages];
  NarrowChunk chunks[kMaxNarrowStages];

  __device__ unsigned char* weights(int stage, int box) {
    return reinterpret_cast<unsigned char*>(this + 1) + stage * Traits::kStageBytes +
           box * Traits::kWeightBytes;
  }
  __device__ unsigned char* input(int stage, int box) {
    return weights(stage, Traits::kBoxes) + box * Traits::kInputBytes;
  }

  // By one thread, before any role begins.
  __device__ void init_barriers(int num_stages) {
#if __CUDA_ARCH__ >= 900
    constexpr uint32_t kLoaders = 2;  // for the bytes, and for what lane 0 has written
#else
    constexpr uint32_t kLoaders = 33;  // each lane's copies, and what one of them has written
#endif
    for (int i = 0; i < num_stages; ++i) {
      full[i].init(kLoaders);
      empty[i].init(kNarrowWarps * 32);
    }
    fence_before_bulk_copies();
  }
};

}  // namespace lamina::kernels::cuda
