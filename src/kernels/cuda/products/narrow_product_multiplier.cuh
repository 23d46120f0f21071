// The warps that multiply: weights are the left factor of m16n8k16 and x is the right one, so that
// eight tokens fill a product.
#pragma once

#include "kernels/cuda/products/narrow_product_shared.cuh"

namespace lamina::kernels::cuda {

template <typename Traits>
class NarrowMultiplier {
 public:
  __device__ NarrowMultiplier(const NarrowParams& params, NarrowShared<Traits>& shared)
      : params_(params), product_(params.product), shared_(shared) {}

  __device__ void run() {
    wait_for_previous_kernel();
    clear();
    while (true) {
      const int stage = stages_.idx;
      shared_.full[stage].wait(stages_.parity);
      const NarrowChunk chunk = shared_.chunks[stage];
      if (chunk.tile < 0) return;
#pragma unroll
      for (int i = 0; i < Traits::kWarpBoxes; ++i) {
        const int box = column_group_ * Traits::kWarpBoxes + i;
        multiply(shared_address(shared_.weights(stage, box)),
                 shared_address(shared_.input(stage, box)));
      }
      shared_.empty[stage].arrive();
      stages_.advance(params_.num_stages);
      if (!chunk.is_last) continue;
      end_tile(chunk.tile);
      clear();
    }
  }

 private:
  using Element = typename Traits::Element;
  static constexpr int kTokenTiles = Traits::kTokenTiles;

  // Of 16 columns: weights, and x transposed.
  struct Factors {
    uint32_t weight[4];
    uint32_t x[kTokenTiles][2];
  };

  __device__ void clear() {
#pragma unroll
    for (auto& sums : sums_) {
#pragma unroll
      for (float& sum : sums) sum = 0.0F;
    }
  }

  // Factors of a step are loaded while those of the step before are multiplied.
  __device__ void multiply(uint32_t weights, uint32_t x) {
    constexpr int kSteps = kBoxColumns / 16;
    Factors factors[2];
    load(factors[0], weights, x, 0);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step + 1 < kSteps) load(factors[(step + 1) % 2], weights, x, step + 1);
      add(factors[step % 2]);
    }
  }

  // Rows are lane % 8 past multiples of 8, for which swizzled chunks depend on the lane alone.
  __device__ uint32_t chunk_offset(int chunk) const { return (chunk ^ lane_ % 8) * 16; }

  __device__ void load(Factors& factors, uint32_t weights, uint32_t x, int step) const {
    const int row = row_group_ * kWarpRows + lane_ % 16;
    load_matrices(factors.weight,
                  weights + row * kBoxRowBytes + chunk_offset(2 * step + lane_ / 16));
    // Two tiles of tokens, or one where there are no more.
    const int token = lane_ / 16 * 8 % Traits::kTokens + lane_ % 8;
    const uint32_t input = x + token * kBoxRowBytes + chunk_offset(2 * step + lane_ / 8 % 2);
    if constexpr (kTokenTiles == 1) {
      load_matrices(factors.x[0], input);
    } else {
#pragma unroll
      for (int n = 0; n < kTokenTiles; n += 2) {
        uint32_t pair[4];
        load_matrices(pair, input + n * 8 * kBoxRowBytes);
        factors.x[n][0] = pair[0];
        factors.x[n][1] = pair[1];
        factors.x[n + 1][0] = pair[2];
        factors.x[n + 1][1] = pair[3];
      }
    }
  }

  __device__ void add(const Factors& factors) {
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      multiply_add<Element>(sums_[n], factors.weight, factors.x[n][0], factors.x[n][1]);
    }
  }

  // The warp of the first columns adds up what the others have, in their order. Two tiles take
  // turns, so that nobody has to wait until it was read.
  __device__ void end_tile(int tile) {
    if constexpr (Traits::kColumnGroups > 1) {
      auto& groups = shared_.sums[turn_][row_group_];
      turn_ ^= 1;
      if (column_group_ > 0) {
#pragma unroll
        for (int n = 0; n < kTokenTiles; ++n) {
          groups[column_group_][n][lane_] =
              make_float4(sums_[n][0], sums_[n][1], sums_[n][2], sums_[n][3]);
        }
      }
      sync_some<1>(kNarrowWarps * 32);
      if (column_group_ > 0) return;
#pragma unroll
      for (int group = 1; group < Traits::kColumnGroups; ++group) {
#pragma unroll
        for (int n = 0; n < kTokenTiles; ++n) add_sums(n, groups[group][n][lane_]);
      }
    }
    store(tile);
  }
  __device__ void add_sums(int n, const float4& other) {
    sums_[n][0] += other.x;
    sums_[n][1] += other.y;
    sums_[n][2] += other.z;
    sums_[n][3] += other.w;
  }

  __device__ void store(int tile) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row =
          int64_t{tile} * Traits::kTileRows + row_group_ * kWarpRows + half * 8 + lane_ / 4;
      if (row >= product_.width) continue;
      const auto* bias = static_cast<const Element*>(product_.bias);
      const float added = bias == nullptr ? 0.0F : static_cast<float>(bias[row]);
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
        const int token = n * 8 + lane_ % 4 * 2;
        store_one(token, row, sums_[n][half * 2] + added);
        store_one(token + 1, row, sums_[n][half * 2 + 1] + added);
      }
    }
  }
  __device__ void store_one(int token, int64_t row, float value) const {
    if (token >= product_.num_tokens) return;
    const int64_t at = token * product_.out_stride + row;
    if (product_.out_element == ElementKind::kF32) {
      static_cast<float*>(product_.out)[at] = value;
    } else {
      static_cast<Element*>(product_.out)[at] = static_cast<Element>(value);
    }
  }

  const NarrowParams& params_;
  const NarrowProduct& product_;
  NarrowShared<Traits>& shared_;
  const int lane_ = threadIdx.x % 32;
  const int row_group_ = threadIdx.x / 32 % Traits::kRowGroups;
  const int column_group_ = threadIdx.x / 32 / Traits::kRowGroups;
  float sums_[kTokenTiles][4];  // as m16n8k16 has them
  RingCounter stages_;
  int turn_ = 0;
};

}  // namespace lamina::kernels::cuda
