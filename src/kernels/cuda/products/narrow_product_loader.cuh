// The warp that copies weights and x to shared memory, as many stages ahead as there are, across
// the bounds of tiles.
#pragma once

#include "kernels/cuda/products/narrow_product_shared.cuh"

namespace lamina::kernels::cuda {

template <typename Traits>
class NarrowLoader {
 public:
  __device__ NarrowLoader(const NarrowParams& params, NarrowShared<Traits>& shared)
      : params_(params), product_(params.product), shared_(shared) {}

  // All work of this block, then the end of it. Multiprocessors do not get equal shares of the
  // bandwidth: blocks begin with a tile of their own and take the others from a queue.
  __device__ void run() {
    int tile = blockIdx.x;
    begin_early(tile);
    wait_for_previous_kernel();
    while (tile < params_.num_tiles) {
      int next = 0;  // asked for early: under load, memory takes microseconds to answer
      if (lane_ == 0) next = atomicAdd(product_.queue, 1) + gridDim.x;
      copy_tile(tile);
      tile = __shfl_sync(~0U, next, 0);
    }
    // Not before: the next kernel's first weights then fill the time in which this one ends.
    allow_next_kernel();
    hand_on({.tile = -1});
    // The last block to leave puts everything back for the next launch.
    if (lane_ == 0 && atomicAdd(product_.queue + 1, 1) == gridDim.x - 1) {
      product_.queue[0] = 0;
      product_.queue[1] = 0;
    }
  }

 private:
  struct Place {
    int tile;
    int chunk;  // of the tile
    [[nodiscard]] __device__ int row() const { return tile * Traits::kTileRows; }
    [[nodiscard]] __device__ int column(int box) const {
      return chunk * Traits::kChunk + box * kBoxColumns;
    }
  };

  // Weights are there while the kernel before this one still runs. A stage of each block keeps
  // memory busy; more would queue up before what short kernels in between load, and those would
  // wait.
  __device__ void begin_early(int tile) {
#if __CUDA_ARCH__ >= 900
    promise(0);
    copy_weights({tile, 0}, 0);
    is_early_ = true;
#endif
  }

  __device__ void copy_tile(int tile) {
    for (int chunk = 0; chunk < params_.num_chunks; ++chunk) {
      const Place place = {tile, chunk};
      const int stage = stages_.idx;
      shared_.empty[stage].wait(stages_.parity ^ 1);
      stages_.advance(params_.num_stages);
      if (lane_ == 0) shared_.chunks[stage] = {tile, chunk + 1 == params_.num_chunks};
      if (is_early_) {
        is_early_ = false;
      } else {
        promise(stage);
        copy_weights(place, stage);
      }
      copy_input(place, stage);
      finish(stage);
    }
  }

  // The next stage without anything but what it says.
  __device__ void hand_on(const NarrowChunk& chunk) {
    const int stage = stages_.idx;
    shared_.empty[stage].wait(stages_.parity ^ 1);
    if (lane_ == 0) shared_.chunks[stage] = chunk;
    promise(stage, 0);
    finish(stage);
  }

  // promise(), copies and finish() are one phase of the stage's barrier.
#if __CUDA_ARCH__ >= 900
  __device__ void promise(int stage, int bytes = Traits::kStageBytes) const {
    if (lane_ == 0) shared_.full[stage].arrive_and_expect(bytes);
    __syncwarp();
  }
  __device__ void finish(int stage) const {
    if (lane_ == 0) shared_.full[stage].arrive();
  }

  // Each of the first lanes copies a box.
  __device__ void copy_weights(const Place& place, int stage) const {
    if (lane_ >= Traits::kBoxes) return;
    copy_box(shared_.weights(stage, lane_),
             params_.weight_map,
             place.column(lane_),
             place.row(),
             shared_.full[stage],
             kEvictFirst);
  }
  __device__ void copy_input(const Place& place, int stage) const {
    if (lane_ >= Traits::kBoxes) return;
    copy_box(shared_.input(stage, lane_),
             params_.x_map,
             place.column(lane_),
             0,
             shared_.full[stage],
             kEvictLast);
  }
#else
  __device__ void promise(int /*stage*/, int /*bytes*/ = 0) const {}
  __device__ void finish(int stage) const {
    shared_.full[stage].arrive_after_copies();
    if (lane_ == 0) shared_.full[stage].arrive();
  }

  // A matrix as boxes are cut from it.
  struct Source {
    const void* data;
    int64_t stride;  // elements
    int64_t num_rows;
  };

  // A lane for each 16 bytes; zeros where the matrix ends.
  template <int kRows>
  __device__ void copy_rows(unsigned char* to, const Source& from, int column, int row) const {
    for (int i = lane_; i < kRows * 8; i += 32) {
      const int own_row = row + i / 8;
      const int own_column = column + i % 8 * 8;
      const bool is_there = own_row < from.num_rows && own_column < product_.depth;
      const auto* element = static_cast<const typename Traits::Element*>(from.data) +
                            (is_there ? own_row * from.stride + own_column : 0);
      copy_16_or_zeros(to + i / 8 * kBoxRowBytes + (i % 8 ^ i / 8 % 8) * 16, element, is_there);
    }
  }
  __device__ void copy_weights(const Place& place, int stage) const {
    const Source weight = {product_.weight, product_.weight_stride, product_.width};
    for (int box = 0; box < Traits::kBoxes; ++box) {
      copy_rows<Traits::kTileRows>(
          shared_.weights(stage, box), weight, place.column(box), place.row());
    }
  }
  __device__ void copy_input(const Place& place, int stage) const {
    const Source x = {product_.x, product_.x_stride, product_.num_tokens};
    for (int box = 0; box < Traits::kBoxes; ++box) {
      copy_rows<Traits::kTokens>(shared_.input(stage, box), x, place.column(box), 0);
    }
  }
#endif

  const NarrowParams& params_;
  const NarrowProduct& product_;
  NarrowShared<Traits>& shared_;
  const int lane_ = threadIdx.x % 32;
  bool is_early_ = false;  // the weights of the next stage were asked for before their turn
  RingCounter stages_;
};

}  // namespace lamina::kernels::cuda
