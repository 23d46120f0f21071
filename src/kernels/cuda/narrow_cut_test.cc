#include "kernels/cuda/narrow_cut.h"

#include <gtest/gtest.h>

namespace lamina::kernels::cuda {
namespace {

NarrowCutShape shape_of(int64_t width, int64_t depth, int num_blocks) {
  return {.width = width,
          .depth = depth,
          .tile_rows = 64,
          .chunk_size = 256,
          .num_blocks = num_blocks,
          .queued_per_block = 4};
}

// Each chunk is in one piece, no piece is empty, and piece_of() finds it.
TEST(NarrowCut, PiecesAreAllChunksInTurn) {
  for (const int num_blocks : {1, 7, 132, 264}) {
    for (const auto& [width, depth] : {std::pair{1, 8},
                                       {64, 256},
                                       {65, 264},
                                       {4096, 4096},
                                       {28672, 4096},
                                       {4096, 14336},
                                       {6656, 17920},
                                       {128256, 4096}}) {
      const NarrowCut cut = make_narrow_cut(shape_of(width, depth, num_blocks));
      ASSERT_LE(cut.num_blocks, num_blocks);
      int32_t chunk = 0;
      for (int32_t piece = 0; piece < cut.num_pieces; ++piece) {
        ASSERT_EQ(cut.piece_begin(piece), chunk);
        ASSERT_GT(cut.piece_begin(piece + 1), chunk) << "piece " << piece << " is empty";
        for (; chunk < cut.piece_begin(piece + 1); ++chunk) {
          ASSERT_EQ(cut.piece_of(chunk), piece) << "chunk " << chunk;
        }
      }
      EXPECT_EQ(chunk, cut.num_tiles * cut.num_chunks);
    }
  }
}

TEST(NarrowCut, OnlyLargeWeightsHaveAQueue) {
  const NarrowCut small = make_narrow_cut(shape_of(4096, 4096, 132));
  EXPECT_EQ(small.num_pieces, 132);
  EXPECT_EQ(small.num_first_tiles, small.num_tiles);
  const NarrowCut large = make_narrow_cut(shape_of(128256, 4096, 132));
  EXPECT_EQ(large.num_pieces, 132 * 5);
  EXPECT_LT(large.num_first_tiles, large.num_tiles);
}

TEST(NarrowCut, KnowsWhatDoesNotFit) {
  EXPECT_TRUE(can_cut(shape_of(128256, 28672, 132)));
  EXPECT_FALSE(can_cut(shape_of(int64_t{1} << 33, 8, 132)));
  EXPECT_FALSE(can_cut(shape_of(8, int64_t{1} << 33, 132)));
  EXPECT_FALSE(can_cut(shape_of(1 << 28, 1 << 20, 132)));
}

}  // namespace
}  // namespace lamina::kernels::cuda
