// How the rows of a KV block lie on the device: token after token, the chunks of 16 bytes of a row
// in an order that depends on the row, so that eight neighbouring rows have the same chunk in eight
// different banks of shared memory. A block's bytes are then copied as they are.
#pragma once

namespace lamina::kernels::cuda {

// The place, among the `num_chunks` of its row, of chunk `chunk` of row `row` of a block. An
// involution.
__host__ __device__ constexpr int swizzled_chunk(int num_chunks, int row, int chunk) {
  // Rows of an odd number of groups start in 8 / group different places; within a group chunks
  // change places.
  const int group = num_chunks % 8 == 0 ? 8 : num_chunks % 4 == 0 ? 4 : num_chunks % 2 == 0 ? 2 : 1;
  return chunk ^ (row / (8 / group) % group);
}

}  // namespace lamina::kernels::cuda
