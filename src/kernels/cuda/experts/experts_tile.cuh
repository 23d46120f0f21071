// The product of a tile of rows with a tile of one or two weights, in shared memory: wmma for
// 16-bit elements, plain sums for f32. All threads of a block work on one tile. Device code only.
#pragma once

#include <mma.h>

#include <type_traits>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/experts/experts_params.h"

namespace lamina::kernels::cuda {

inline constexpr int kTileThreads = 128;
inline constexpr int kTileWarps = kTileThreads / 32;

// Columns of the products that are in shared memory at once, 128 bytes of a row, and 16 bytes
// beside them, which spread rows over the banks.
template <typename Element>
inline constexpr int kTileDepth = 128 / static_cast<int>(sizeof(Element));
template <typename Element>
inline constexpr int kTilePitch = 144 / static_cast<int>(sizeof(Element));
inline constexpr int kSumsPitch = kTileColumns + 4;

// Operands while sums are made, then the sums. kParts: 2 where gates and ups are made together.
template <typename Element, int kRows, int kParts>
union alignas(128) TileShared {
  struct {
    Element x[kRows][kTilePitch<Element>];
    Element weight[kParts][kTileColumns][kTilePitch<Element>];
  } in;
  float sums[kParts][kRows][kSumsPitch];
};

// Rows of a matrix that a tile multiplies: each by its address, null for a row of zeros. They may
// be read 16 bytes at once where `is_aligned`.
template <typename Element>
struct TileSource {
  const Element* const* rows;
  int depth;
  bool is_aligned;
};

// Copies columns [begin, begin + kTileDepth) of `num_rows` rows; zeros past the last column.
template <typename Element>
__device__ void load_tile(const TileSource<Element>& from,
                          int num_rows,
                          int begin,
                          Element (*to)[kTilePitch<Element>]) {
  constexpr int kDepth = kTileDepth<Element>;
  const int left = min(kDepth, from.depth - begin);
  if (from.is_aligned) {  // then the depth is whole chunks too
    constexpr int kChunk = 16 / static_cast<int>(sizeof(Element));
    constexpr int kChunks = kDepth / kChunk;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < num_rows * kChunks; i += kTileThreads) {
      const int row = i / kChunks;
      const int column = i % kChunks * kChunk;
      const Element* source = from.rows[row];
      uint4 chunk = make_uint4(0, 0, 0, 0);
      if (source != nullptr && column < left) {
        chunk = *reinterpret_cast<const uint4*>(source + begin + column);
      }
      *reinterpret_cast<uint4*>(&to[row][column]) = chunk;
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < num_rows * kDepth; i += kTileThreads) {
    const int row = i / kDepth;
    const int column = i % kDepth;
    const Element* source = from.rows[row];
    to[row][column] =
        source != nullptr && column < left ? source[begin + column] : narrow<Element>(0.0F);
  }
}

// Sums of 16-bit elements: each warp has every kTileWarps-th of the fragments of 16 x 16.
template <typename Element, int kRows, int kParts>
class TileSums {
 public:
  using Shared = TileShared<Element, kRows, kParts>;

  __device__ TileSums() {
    for (auto& part : sums_) {
      for (Sum& sum : part) nvcuda::wmma::fill_fragment(sum, 0.0F);
    }
  }
  __device__ void add(const Shared& shared) {
    using nvcuda::wmma::load_matrix_sync;
    constexpr int kPitch = kTilePitch<Element>;
    for (int k = 0; k < kTileDepth<Element>; k += 16) {
#pragma unroll
      for (int i = 0; i < kFragments; ++i) {
        Rows rows;
        load_matrix_sync(rows, &shared.in.x[row_of(i)][k], kPitch);
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          Columns columns;
          load_matrix_sync(columns, &shared.in.weight[part][column_of(i)][k], kPitch);
          nvcuda::wmma::mma_sync(sums_[part][i], rows, columns, sums_[part][i]);
        }
      }
    }
  }
  __device__ void store(Shared& shared) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int i = 0; i < kFragments; ++i) {
        nvcuda::wmma::store_matrix_sync(&shared.sums[part][row_of(i)][column_of(i)],
                                        sums_[part][i],
                                        kSumsPitch,
                                        nvcuda::wmma::mem_row_major);
      }
    }
  }

 private:
  using Rows =
      nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, Element, nvcuda::wmma::row_major>;
  using Columns =
      nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, Element, nvcuda::wmma::col_major>;
  using Sum = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;
  static constexpr int kFragmentColumns = kTileColumns / 16;
  static constexpr int kFragments = kRows / 16 * kFragmentColumns / kTileWarps;

  __device__ static int index(int i) { return static_cast<int>(threadIdx.x) / 32 + i * kTileWarps; }
  __device__ static int row_of(int i) { return index(i) / kFragmentColumns * 16; }
  __device__ static int column_of(int i) { return index(i) % kFragmentColumns * 16; }

  Sum sums_[kParts][kFragments];
};

// Of f32: each thread has one column of every other row.
template <int kRows, int kParts>
class TileSums<float, kRows, kParts> {
 public:
  using Shared = TileShared<float, kRows, kParts>;

  __device__ void add(const Shared& shared) {
    for (int k = 0; k < kTileDepth<float>; ++k) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const float weight = shared.in.weight[part][column()][k];
#pragma unroll
        for (int i = 0; i < kOwnRows; ++i) {
          sums_[part][i] = fmaf(shared.in.x[row_of(i)][k], weight, sums_[part][i]);
        }
      }
    }
  }
  __device__ void store(Shared& shared) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) shared.sums[part][row_of(i)][column()] = sums_[part][i];
    }
  }

 private:
  static constexpr int kRowStep = kTileThreads / kTileColumns;
  static constexpr int kOwnRows = kRows / kRowStep;

  __device__ static int column() { return static_cast<int>(threadIdx.x) % kTileColumns; }
  __device__ static int row_of(int i) {
    return static_cast<int>(threadIdx.x) / kTileColumns + i * kRowStep;
  }

  float sums_[kParts][kOwnRows] = {};
};

// shared.sums = rows of x times rows of each weight, and all threads see them.
template <typename Element, int kRows, int kParts>
__device__ void multiply_tile(const TileSource<Element>& x,
                              const TileSource<Element> (&weights)[kParts],
                              TileShared<Element, kRows, kParts>& shared) {
  TileSums<Element, kRows, kParts> sums;
  for (int begin = 0; begin < x.depth; begin += kTileDepth<Element>) {
    __syncthreads();  // what was there is used
    load_tile(x, kRows, begin, shared.in.x);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      load_tile(weights[part], kTileColumns, begin, shared.in.weight[part]);
    }
    __syncthreads();
    sums.add(shared);
  }
  __syncthreads();
  sums.store(shared);
  __syncthreads();
}

}  // namespace lamina::kernels::cuda
