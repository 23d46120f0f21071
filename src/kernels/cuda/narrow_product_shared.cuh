// What the roles of the kernel of narrow products share: sizes, shared memory, its parameters.
//
// Four warps multiply; warp w has the rows w * kWarpRows of each tile, and a stage of weights is
// for one warp: its rows of one chunk. A chunk of x is for all of them.
#pragma once

#include "kernels/cuda/narrow_cut.h"
#include "kernels/cuda/narrow_product.h"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {

inline constexpr int kNarrowWarps = 4;
inline constexpr int kNarrowThreads = (kNarrowWarps + 1) * 32;
inline constexpr int kMaxNarrowStages = 16;

// Each tile of rows reads all of x from the L2 cache: tiles have four or two times as many rows as
// x, so that this stays small beside the weights. Copies are of kChunk columns of a row: the longer
// they are, the better for memory.
template <typename ElementType, int kMaxTokens>
struct NarrowTraits {
  using Element = ElementType;
  static constexpr int kTokens = kMaxTokens;
  static constexpr int kWarpRows = kTokens <= 32 ? 16 : 32;
  static constexpr int kChunk = kTokens <= 32 ? 256 : 128;
  static constexpr int kInputs = kTokens <= 16 ? 3 : 2;  // chunks of x at a time
  static constexpr int kQueuedPerBlock = kTokens <= 16 ? 4 : kTokens <= 32 ? 2 : 1;

  static constexpr int kTileRows = kNarrowWarps * kWarpRows;
  static constexpr int kRowTiles = kWarpRows / 16;
  static constexpr int kTokenTiles = kTokens / 8;
  static constexpr int kSteps = kChunk / 16;
  // Rows start in different banks.
  static constexpr int kRowBytes = kChunk * static_cast<int>(sizeof(Element)) + 16;
  static constexpr int kStageBytes = kWarpRows * kRowBytes;
  static constexpr int kInputBytes = kTokens * kRowBytes;
  static constexpr int kTileSums = kTileRows * kTokens;
  static_assert(kWarpRows <= 32 && kTokens % 8 == 0);
};

struct NarrowParams {
  NarrowProduct product;
  NarrowCut cut;
  int32_t num_stages;
  int32_t num_prefetched;  // stages asked of memory ahead of the ring, before x is there
};

// The workspace: counters, then the parts of sums.
struct NarrowWorkspace {
  int32_t* queue;     // pieces taken, blocks that are done
  int32_t* arrivals;  // [num_pieces, kNarrowWarps]: of the tile that begins in a piece and is cut
  float4* parts;      // [num_pieces, 2, kTileSums]: of a piece's first tile and of its last one

  __device__ explicit NarrowWorkspace(void* memory)
      : queue(static_cast<int32_t*>(memory)),
        arrivals(queue + kQueueInts),
        parts(
            reinterpret_cast<float4*>(static_cast<unsigned char*>(memory) + kNarrowCounterBytes)) {}
  static constexpr int kQueueInts = 16;
  static constexpr int kMaxPieces =
      (static_cast<int>(kNarrowCounterBytes / sizeof(int32_t)) - kQueueInts) / kNarrowWarps;
};

// What comes with a chunk of x: its place in the work.
struct NarrowChunk {
  int32_t tile;  // or -1: no more
  int32_t piece;
  int32_t num_columns;
  bool ends_part;  // the last of its tile or of its piece
};

// Shared memory: this, then kInputs chunks of x, then params.num_stages stages of weights.
template <typename Traits>
struct alignas(128) NarrowShared {
  Barrier input_full[Traits::kInputs];
  Barrier input_empty[Traits::kInputs];
  Barrier full[kMaxNarrowStages];
  Barrier empty[kMaxNarrowStages];
  NarrowChunk chunks[Traits::kInputs];

  __device__ unsigned char* input(int idx) {
    return reinterpret_cast<unsigned char*>(this + 1) + idx * Traits::kInputBytes;
  }
  __device__ unsigned char* stage(int idx) {
    return input(Traits::kInputs) + idx * Traits::kStageBytes;
  }

  // By one thread, before any role begins.
  __device__ void init_barriers(int num_stages) {
#if __CUDA_ARCH__ >= 900
    constexpr uint32_t kLoaders = 1;
#else
    constexpr uint32_t kLoaders = 33;  // each lane's copies, and what one of them has written
#endif
    for (int i = 0; i < Traits::kInputs; ++i) {
      input_full[i].init(kLoaders);
      input_empty[i].init(kNarrowWarps);
    }
    for (int i = 0; i < num_stages; ++i) {
      full[i].init(kLoaders);
      empty[i].init(1);
    }
    fence_before_bulk_copies();
  }
};

}  // namespace lamina::kernels::cuda
