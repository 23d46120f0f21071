// The warps that multiply: each has its rows of a tile, weights as the left factor of m16n8k16 and
// x as the right one, so that eight tokens fill a product. Warps do not wait for each other.
#pragma once

#include "kernels/cuda/narrow_product_shared.cuh"

namespace lamina::kernels::cuda {

template <typename Traits>
class NarrowMultiplier {
 public:
  __device__ NarrowMultiplier(const NarrowParams& params, NarrowShared<Traits>& shared)
      : params_(params),
        product_(params.product),
        cut_(params.cut),
        workspace_(params.product.workspace),
        shared_(shared) {}

  __device__ void run() {
    wait_for_previous_kernel();
    clear();
    while (true) {
      const int stage = stages_.idx;
      shared_.full[stage].wait(stages_.parity);
      const NarrowChunk chunk = shared_.chunks[stage];
      if (chunk.tile < 0) return;
#pragma unroll
      for (int box = 0; box < Traits::kBoxes; ++box) {
        multiply(shared_address(shared_.weights(stage, box)),
                 shared_address(shared_.input(stage, box)));
      }
      __syncwarp();
      if (lane_ == 0) shared_.empty[stage].arrive();
      stages_.advance(params_.num_stages);
      if (!chunk.ends_part) continue;
      end_part(chunk);
      clear();
    }
  }

 private:
  using Element = typename Traits::Element;
  static constexpr int kRowTiles = Traits::kRowTiles;
  static constexpr int kTokenTiles = Traits::kTokenTiles;
  static constexpr int kFragments = kRowTiles * kTokenTiles;

  // Of 16 columns: weights, and x transposed.
  struct Factors {
    uint32_t weight[kRowTiles][4];
    uint32_t x[kTokenTiles][2];
  };

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kFragments * 4; ++i) sums_[i / 4][i % 4] = 0.0F;
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
    const int weight_row = warp_ * Traits::kWarpRows + lane_ % 16;
    const uint32_t weight =
        weights + weight_row * kBoxRowBytes + chunk_offset(2 * step + lane_ / 16);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      load_matrices(factors.weight[m], weight + m * 16 * kBoxRowBytes);
    }
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
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
        multiply_add<Element>(
            sums_[m * kTokenTiles + n], factors.weight[m], factors.x[n][0], factors.x[n][1]);
      }
    }
  }

  // A tile that several pieces share is summed by the last warp to arrive, in the order of pieces.
  __device__ void end_part(const NarrowChunk& chunk) {
    const int tile_begin = chunk.tile * cut_.num_chunks;
    const int first = cut_.piece_of(tile_begin);
    const int last = cut_.piece_of(tile_begin + cut_.num_chunks - 1);
    if (first == last) {
      store(chunk.tile);
      return;
    }
    write_part(part_of(chunk.piece, tile_begin));
    if (!arrives_last(first, last - first + 1)) return;
    clear();
    add_part(part_of(first, tile_begin));
    // Those after the first begin within the tile.
#pragma unroll 4
    for (int piece = first + 1; piece <= last; ++piece) add_part(part_at(piece, 0));
    store(chunk.tile);
  }

  // A piece has at most two tiles that it shares: the one it begins in, and the one it ends in.
  __device__ float4* part_at(int piece, int which) const {
    return workspace_.parts +
           ((piece * 2 + which) * kNarrowWarps + warp_) * int64_t{kFragments * 32} + lane_;
  }
  __device__ float4* part_of(int piece, int tile_begin) const {
    return part_at(piece, cut_.piece_begin(piece) < tile_begin ? 1 : 0);
  }

  __device__ void write_part(float4* part) const {
#pragma unroll
    for (int i = 0; i < kFragments; ++i) {
      const float(&sums)[4] = sums_[i];
      __stcg(part + i * 32, make_float4(sums[0], sums[1], sums[2], sums[3]));
    }
  }
  __device__ void add_part(const float4* part) {
#pragma unroll
    for (int i = 0; i < kFragments; ++i) {
      const float4 sums = __ldcg(part + i * 32);
      sums_[i][0] += sums.x;
      sums_[i][1] += sums.y;
      sums_[i][2] += sums.z;
      sums_[i][3] += sums.w;
    }
  }

  // Whether this warp's part is the last of `count`, whose writes it then sees. Leaves the counter
  // as it was before the launch.
  __device__ bool arrives_last(int first_piece, int count) const {
    int32_t* arrivals = workspace_.arrivals + first_piece * kNarrowWarps + warp_;
    __threadfence();
    __syncwarp();
    int before = 0;
    if (lane_ == 0) before = atomicAdd(arrivals, 1);
    if (__shfl_sync(~0U, before, 0) != count - 1) return false;
    if (lane_ == 0) *arrivals = 0;
    __threadfence();
    return true;
  }

  __device__ void store(int tile) const {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = int64_t{tile} * Traits::kTileRows + warp_ * Traits::kWarpRows + m * 16 +
                            half * 8 + lane_ / 4;
        if (row >= product_.width) continue;
        const auto* bias = static_cast<const Element*>(product_.bias);
        const float added = bias == nullptr ? 0.0F : static_cast<float>(bias[row]);
#pragma unroll
        for (int n = 0; n < kTokenTiles; ++n) {
          const float* sums = sums_[m * kTokenTiles + n] + half * 2;
          const int token = n * 8 + lane_ % 4 * 2;
          store_one(token, row, sums[0] + added);
          store_one(token + 1, row, sums[1] + added);
        }
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
  const NarrowCut& cut_;
  const NarrowWorkspace workspace_;
  NarrowShared<Traits>& shared_;
  const int warp_ = threadIdx.x / 32;
  const int lane_ = threadIdx.x % 32;
  float sums_[kFragments][4];  // [row tile, token tile], as m16n8k16 has them
  RingCounter stages_;
};

}  // namespace lamina::kernels::cuda
