// What the kernels of experts() share with the host: how tokens are laid out for their experts, and
// the addresses. An assignment is one token at one expert. Assignments are sorted by expert and
// then token, and each expert's are filled up to whole tiles, so that a tile has one expert. How
// many there are the device alone knows: grids cover what there may be, in passes over ranges of
// tiles, since what lies between the products is held for one range only. Plain values, which nvcc
// takes too.
#pragma once

#include <cstdint>

#include "kernels/cuda/element_kind.h"
#include "tensor/op_attrs.h"

namespace lamina::kernels::cuda {

// Tokens of a tile: few where each expert gets few.
inline constexpr int kNarrowTileRows = 16;
inline constexpr int kWideTileRows = 64;
inline constexpr int kTileColumns = 64;

// GatedActivationAttrs, as kernels take them.
struct Gate {
  Activation activation = Activation::kSilu;
  bool has_limit = false;
  float limit = 0.0F;
};

// In device memory, written by launch_assignment().
struct Assignment {
  int32_t* counts;          // [X] tokens of each expert
  int32_t* num_tiles;       // [1]
  int32_t* expert_of_tile;  // [max_tiles]
  int32_t* token_of_row;    // [max_tiles * tile_rows]; -1: none
  int32_t* row_of_route;    // [T, X]; of routes that are 0, anything
};

struct ExpertsParams {
  const void* x;             // [T, K]
  const float* routes;       // [T, X]
  const void* gate_up;       // [X, 2 I, K]
  const void* down;          // [X, E, I]
  const void* gate_up_bias;  // [X, 2 I] or null
  const void* down_bias;     // [X, E] or null
  void* out;                 // [T, E]
  int64_t x_stride;          // elements between rows
  int64_t routes_stride;
  int64_t gate_up_bias_stride;
  int64_t down_bias_stride;
  int64_t out_stride;
  int32_t num_tokens;   // T
  int32_t num_experts;  // X
  int32_t depth;        // K
  int32_t inner;        // I
  int32_t width;        // E
  Gate gate;

  int32_t tile_rows;  // kNarrowTileRows or kWideTileRows
  Assignment assignment;
  // Of the tiles of one pass, [pass_tiles * tile_rows] rows:
  void* activated;  // [.., I] of x's element
  float* results;   // [.., E]
  float* sums;      // [T, E], what passes so far gave; null where one pass is all
  // Tiles [first_tile, first_tile + pass_tiles).
  int32_t first_tile;
  int32_t pass_tiles;
};

}  // namespace lamina::kernels::cuda
