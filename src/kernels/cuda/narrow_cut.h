// NarrowCut: which block of a narrow product multiplies what. The weight is cut into tiles of some
// rows, a tile into chunks of some columns, and the sequence of all chunks, tile after tile, into
// pieces: a block starts with a piece of its own and takes the others from a queue, since
// multiprocessors do not get equal shares of the bandwidth. Where pieces begin, and so the order of
// sums, depends on the shape and the card alone. For the host and the device.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __CUDACC__
#define LAMINA_HOST_DEVICE __host__ __device__
#else
#define LAMINA_HOST_DEVICE
#endif

namespace lamina::kernels::cuda {

struct NarrowCut {
  int32_t num_chunks;       // of a tile
  int32_t num_tiles;        // of all
  int32_t num_first_tiles;  // those in the pieces that blocks start with
  int32_t num_blocks;       // and as many pieces to start with
  int32_t num_pieces;       // of all

  // The first chunk of a piece; of the piece past the last one, the number of chunks.
  LAMINA_HOST_DEVICE int32_t piece_begin(int32_t piece) const {
    if (piece <= num_blocks) return first_chunks() * piece / num_blocks;
    return first_chunks() + queued_chunks() * (piece - num_blocks) / (num_pieces - num_blocks);
  }
  LAMINA_HOST_DEVICE int32_t piece_of(int32_t chunk) const {
    if (chunk < first_chunks()) return ((chunk + 1) * num_blocks - 1) / first_chunks();
    const int32_t queued = chunk - first_chunks();
    return num_blocks + ((queued + 1) * (num_pieces - num_blocks) - 1) / queued_chunks();
  }

  [[nodiscard]] LAMINA_HOST_DEVICE int32_t first_chunks() const {
    return num_first_tiles * num_chunks;
  }
  [[nodiscard]] LAMINA_HOST_DEVICE int32_t queued_chunks() const {
    return (num_tiles - num_first_tiles) * num_chunks;
  }
};

// What a cut depends on.
struct NarrowCutShape {
  int64_t width;   // N
  int64_t depth;   // K
  int tile_rows;   // of a tile
  int chunk_size;  // columns of a chunk
  int num_blocks;  // at most
  // Of the queue, for each block, at most: more pieces are more parts of sums to write and to read.
  int queued_per_block;
};

// Whether positions in such a cut fit its integers.
inline bool can_cut(const NarrowCutShape& shape) {
  const int64_t tiles = (shape.width + shape.tile_rows - 1) / shape.tile_rows;
  const int64_t chunks = (shape.depth + shape.chunk_size - 1) / shape.chunk_size;
  const int64_t pieces = int64_t{shape.num_blocks} * (1 + shape.queued_per_block);
  return shape.width < INT32_MAX / 2 && shape.depth < INT32_MAX / 2 &&
         tiles * chunks < INT32_MAX / pieces;
}

inline NarrowCut make_narrow_cut(const NarrowCutShape& shape) {
  // Below, a block's share is loaded in some microseconds, and a queue has nothing to balance.
  constexpr int64_t kFewestQueueBytes = 768 << 10;
  constexpr int64_t kFewestPieceBytes = 96 << 10;
  constexpr int64_t kQueuedPercent = 30;
  constexpr int64_t kElementBytes = 2;
  NarrowCut cut{};
  cut.num_chunks = static_cast<int32_t>((shape.depth + shape.chunk_size - 1) / shape.chunk_size);
  cut.num_tiles = static_cast<int32_t>((shape.width + shape.tile_rows - 1) / shape.tile_rows);
  cut.num_first_tiles = cut.num_tiles;
  cut.num_blocks = std::min(shape.num_blocks, cut.num_tiles * cut.num_chunks);
  cut.num_pieces = cut.num_blocks;
  if (shape.width * shape.depth * kElementBytes / cut.num_blocks < kFewestQueueBytes) return cut;
  const int64_t queued_tiles = cut.num_tiles * kQueuedPercent / 100;
  const int64_t queued_bytes = queued_tiles * shape.tile_rows * shape.depth * kElementBytes;
  const int64_t num_queued = std::min(
      queued_bytes / kFewestPieceBytes,
      std::min(queued_tiles * cut.num_chunks, int64_t{cut.num_blocks} * shape.queued_per_block));
  if (num_queued == 0) return cut;
  cut.num_first_tiles -= static_cast<int32_t>(queued_tiles);
  cut.num_pieces += static_cast<int32_t>(num_queued);
  return cut;
}

}  // namespace lamina::kernels::cuda
