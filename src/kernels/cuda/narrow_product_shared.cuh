// What the roles of the kernel of narrow products share: sizes, shared memory, its parameters.
//
// A stage holds a chunk of a tile of weights and the same columns of x. Four warps multiply; warp w
// has the rows w * kWarpRows of each tile.
#pragma once

#include "kernels/cuda/narrow_cut.h"
#include "kernels/cuda/narrow_product.h"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {

inline constexpr int kNarrowWarps = 4;
inline constexpr int kNarrowThreads = (kNarrowWarps + 1) * 32;
inline constexpr int kMaxNarrowStages = 16;

// What is copied at once: 128 bytes of each of some rows. In shared memory they lie one below the
// other, their chunks of 16 bytes swizzled over the banks: chunk c of row r at c ^ r % 8, as the
// tensor copy's 128-byte mode has it, which wants boxes to begin at multiples of eight rows.
inline constexpr int kBoxColumns = 64;
inline constexpr int kBoxRowBytes = 128;
inline constexpr int kBoxAlignment = 8 * kBoxRowBytes;

// Each tile of rows reads all of x from the L2 cache: tiles have twice as many rows as x at least,
// so that this stays small beside the weights.
template <typename ElementType, int kMaxTokens>
struct NarrowTraits {
  using Element = ElementType;
  static constexpr int kTokens = kMaxTokens;
  static constexpr int kWarpRows = kTokens <= 32 ? 16 : 32;
  static constexpr int kBoxes = kTokens <= 32 ? 2 : 1;  // of a chunk
  static constexpr int kQueuedPerBlock = kTokens <= 16 ? 4 : kTokens <= 32 ? 2 : 1;

  static constexpr int kTileRows = kNarrowWarps * kWarpRows;
  static constexpr int kRowTiles = kWarpRows / 16;
  static constexpr int kTokenTiles = kTokens / 8;
  static constexpr int kChunk = kBoxes * kBoxColumns;
  static constexpr int kWeightBytes = kTileRows * kBoxRowBytes;  // of a box
  static constexpr int kInputBytes = kTokens * kBoxRowBytes;
  static constexpr int kStageBytes = kBoxes * (kWeightBytes + kInputBytes);
  static constexpr int kTileSums = kTileRows * kTokens;
  static_assert(sizeof(Element) * kBoxColumns == kBoxRowBytes && kTokens % 8 == 0);
};

struct NarrowParams {
  // How the tensor copy finds boxes; not used before Hopper.
  CUtensorMap weight_map;
  CUtensorMap x_map;
  NarrowProduct product;
  NarrowCut cut;
  int32_t num_stages;
  int32_t num_prefetched;  // chunks asked of memory ahead of the ring, before x is there
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

// What comes with a stage: its place in the work.
struct NarrowChunk {
  int32_t tile;  // or -1: no more
  int32_t piece;
  bool ends_part;  // the last of its tile or of its piece
};

// Shared memory: this, then params.num_stages stages.
template <typename Traits>
struct alignas(kBoxAlignment) NarrowShared {
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
      empty[i].init(kNarrowWarps);
    }
    fence_before_bulk_copies();
  }
};

}  // namespace lamina::kernels::cuda
