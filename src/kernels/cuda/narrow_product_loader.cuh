// The warp that copies weights and x to shared memory, as many stages ahead as there are, across
// the bounds of pieces.
#pragma once

#include "kernels/cuda/narrow_product_shared.cuh"

namespace lamina::kernels::cuda {

template <typename Traits>
class NarrowLoader {
 public:
  __device__ NarrowLoader(const NarrowParams& params, NarrowShared<Traits>& shared)
      : params_(params), product_(params.product), cut_(params.cut), shared_(shared) {}

  // All work of this block, then the end of it.
  __device__ void run() {
    int piece = blockIdx.x;
    begin_early(piece);
    wait_for_previous_kernel();
    int32_t* queue = NarrowWorkspace(product_.workspace).queue;
    while (piece < cut_.num_pieces) {
      int next = 0;  // asked for early: under load, memory takes microseconds to answer
      if (lane_ == 0) next = atomicAdd(queue, 1) + gridDim.x;
      copy_piece(piece);
      piece = __shfl_sync(~0U, next, 0);
    }
    // Not before: the next kernel's first weights then fill the time in which this one ends.
    allow_next_kernel();
    publish({.tile = -1});
    // The last block to leave puts everything back for the next launch.
    if (lane_ == 0 && atomicAdd(queue + 1, 1) == gridDim.x - 1) {
      queue[0] = 0;
      queue[1] = 0;
    }
  }

 private:
  static constexpr int kElementBytes = sizeof(typename Traits::Element);

  // Weights are there while the kernel before this one still runs: they fill the ring, and memory
  // goes on to bring the next ones to the L2 cache.
  __device__ void begin_early(int piece) {
#if __CUDA_ARCH__ >= 900
    const int begin = cut_.piece_begin(piece);
    const int count = (cut_.piece_begin(piece + 1) - begin) * kNarrowWarps;
    num_early_ = min(params_.num_stages, count);
    const int end = min(num_early_ + params_.num_prefetched, count);
    Place place = place_of(begin);
    for (int i = 0; i < end; ++i) {
      const int warp = i % kNarrowWarps;
      if (i < num_early_) {
        copy_weights(place, warp);
      } else {
        const Weights weights = find_weights(place, warp);
        if (lane_ < weights.num_rows) prefetch_to_l2(weights.row, weights.num_bytes);
      }
      if (warp == kNarrowWarps - 1) advance(place);
    }
#endif
  }

  __device__ void copy_piece(int piece) {
    const int begin = cut_.piece_begin(piece);
    const int end = cut_.piece_begin(piece + 1);
    Place place = place_of(begin);
    for (int chunk = begin; chunk < end; ++chunk) {
      publish({.tile = place.tile,
               .piece = piece,
               .num_columns = num_columns(place),
               .ends_part = chunk + 1 == end || place.chunk + 1 == cut_.num_chunks},
              place.chunk);
      for (int warp = 0; warp < kNarrowWarps; ++warp) {
        if (num_early_ > 0) {
          --num_early_;
        } else {
          copy_weights(place, warp);
        }
      }
      advance(place);
    }
  }

  struct Place {
    int tile;
    int chunk;  // of the tile
  };
  __device__ Place place_of(int chunk) const {
    return {chunk / cut_.num_chunks, chunk % cut_.num_chunks};
  }
  __device__ void advance(Place& place) const {
    if (++place.chunk < cut_.num_chunks) return;
    place.chunk = 0;
    ++place.tile;
  }
  __device__ int num_columns(const Place& place) const {
    return min(Traits::kChunk, static_cast<int>(product_.depth) - place.chunk * Traits::kChunk);
  }

  // The rows of a warp's stage, and where this lane's begins.
  struct Weights {
    const unsigned char* row;
    int num_rows;
    int num_bytes;  // of a row
  };
  __device__ Weights find_weights(const Place& place, int warp) const {
    const int row = place.tile * Traits::kTileRows + warp * Traits::kWarpRows;
    const int left = static_cast<int>(product_.width) - row;
    const auto* weight = static_cast<const unsigned char*>(product_.weight);
    return {weight + ((row + lane_) * product_.weight_stride + place.chunk * Traits::kChunk) *
                         kElementBytes,
            max(min(left, Traits::kWarpRows), 0),
            num_columns(place) * kElementBytes};
  }

  __device__ void copy_weights(const Place& place, int warp) {
    const Weights weights = find_weights(place, warp);
    const int idx = stages_.idx;
    shared_.empty[idx].wait(stages_.parity ^ 1);
    stages_.advance(params_.num_stages);
    promise(shared_.full[idx], weights.num_rows * weights.num_bytes);
    copy_rows(shared_.stage(idx),
              weights.row,
              weights.num_rows,
              weights.num_bytes,
              shared_.full[idx],
              kEvictFirst);
    finish(shared_.full[idx]);
  }

  // Hands a chunk to the warps that multiply, with its columns of x unless it is the end.
  __device__ void publish(const NarrowChunk& chunk, int chunk_of_tile = 0) {
    const int idx = inputs_.idx;
    shared_.input_empty[idx].wait(inputs_.parity ^ 1);
    inputs_.advance(Traits::kInputs);
    if (lane_ == 0) shared_.chunks[idx] = chunk;
    const int num_tokens = chunk.tile < 0 ? 0 : static_cast<int>(product_.num_tokens);
    const int num_bytes = chunk.num_columns * kElementBytes;
    const auto* x = static_cast<const unsigned char*>(product_.x);
    promise(shared_.input_full[idx], num_tokens * num_bytes);
    for (int begin = 0; begin < num_tokens; begin += 32) {
      copy_rows(shared_.input(idx) + begin * Traits::kRowBytes,
                x + ((begin + lane_) * product_.x_stride + chunk_of_tile * Traits::kChunk) *
                        kElementBytes,
                min(num_tokens - begin, 32),
                num_bytes,
                shared_.input_full[idx],
                kEvictLast);
    }
    finish(shared_.input_full[idx]);
  }

  // promise(), copies and finish() are one phase of `full`.
  __device__ void promise(Barrier& full, int bytes) const {
#if __CUDA_ARCH__ >= 900
    if (lane_ == 0) full.arrive_and_expect(bytes);
    __syncwarp();
#endif
  }
  __device__ void finish(Barrier& full) const {
#if __CUDA_ARCH__ < 900
    full.arrive_after_copies();
    if (lane_ == 0) full.arrive();
#endif
  }

  // Each of the first `num_rows` lanes has the address of its row.
  __device__ void copy_rows(unsigned char* to,
                            const unsigned char* row,
                            int num_rows,
                            int bytes,
                            Barrier& full,
                            uint64_t policy) const {
#if __CUDA_ARCH__ >= 900
    if (lane_ < num_rows) bulk_copy(to + lane_ * Traits::kRowBytes, row, bytes, full, policy);
#else
    for (int r = 0; r < num_rows; ++r) {
      const auto* from = reinterpret_cast<const unsigned char*>(
          __shfl_sync(~0U, reinterpret_cast<unsigned long long>(row), r));
      for (int offset = lane_ * 16; offset < bytes; offset += 32 * 16) {
        copy_16(to + r * Traits::kRowBytes + offset, from + offset);
      }
    }
#endif
  }

  const NarrowParams& params_;
  const NarrowProduct& product_;
  const NarrowCut& cut_;
  NarrowShared<Traits>& shared_;
  const int lane_ = threadIdx.x % 32;
  int num_early_ = 0;  // stages copied ahead of their chunks
  RingCounter stages_;
  RingCounter inputs_;
};

}  // namespace lamina::kernels::cuda
