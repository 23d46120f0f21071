#include "kernels/experts.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked_math.h"
#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "kernels/cuda/carver.h"
#include "kernels/cuda/element_of_dtype.h"
#include "kernels/cuda/experts/experts_launch.h"
#include "kernels/cuda/experts/route.cuh"
#include "kernels/cuda/operators.h"
#include "kernels/cuda/workspace.h"

namespace lamina::kernels::cuda {
namespace {

using lamina::cuda::raw;
using lamina::cuda::to_status;

// Up to so many tokens tiles are narrow: an expert then gets few.
constexpr int32_t kMaxNarrowTokens = 256;
// Of what lies between the products. A step that may have more takes several passes.
constexpr int64_t kMaxPassBytes = int64_t{256} << 20;
constexpr int64_t kMaxPassTiles = 65535;  // of a grid's second axis

int32_t extent(const Shape& shape, int axis) {
  return static_cast<int32_t>(shape[axis]);
}

// How many tiles there may be at most, and how they are cut into passes.
struct Passes {
  int32_t max_tiles = 0;
  int32_t pass_tiles = 0;
};

Passes passes_of(const ExpertsParams& params, size_t element_bytes) {
  const int64_t max_tiles =
      int64_t{params.num_experts} * ceil_div(params.num_tokens, params.tile_rows);
  const int64_t row_bytes = int64_t{params.inner} * static_cast<int64_t>(element_bytes) +
                            int64_t{params.width} * static_cast<int64_t>(sizeof(float));
  const int64_t fitting = std::max<int64_t>(1, kMaxPassBytes / (row_bytes * params.tile_rows));
  return {static_cast<int32_t>(max_tiles),
          static_cast<int32_t>(std::min({max_tiles, fitting, kMaxPassTiles}))};
}

// Points `params` at its parts of the workspace. Returns how many bytes they are.
size_t carve(const Passes& passes, size_t element_bytes, std::byte* memory, ExpertsParams& params) {
  Carver carver(memory);
  const int64_t pass_rows = int64_t{passes.pass_tiles} * params.tile_rows;
  params.assignment = {
      .counts = carver.take<int32_t>(params.num_experts),
      .num_tiles = carver.take<int32_t>(1),
      .expert_of_tile = carver.take<int32_t>(passes.max_tiles),
      .token_of_row = carver.take<int32_t>(int64_t{passes.max_tiles} * params.tile_rows),
      .row_of_route = carver.take<int32_t>(int64_t{params.num_tokens} * params.num_experts)};
  params.activated =
      carver.take<std::byte>(pass_rows * params.inner * static_cast<int64_t>(element_bytes));
  params.results = carver.take<float>(pass_rows * params.width);
  if (passes.pass_tiles < passes.max_tiles) {
    params.sums = carver.take<float>(int64_t{params.num_tokens} * params.width);
  }
  return carver.size_bytes();
}

ExpertsParams params_of(const ExpertsArgs& args) {
  const Shape down = args.down.shape();
  const int32_t num_tokens = extent(args.x.shape, 0);
  ExpertsParams params{};
  params.x = args.x.data;
  params.routes = args.routes.as<float>();
  params.gate_up = args.gate_up.tensor.data;
  params.down = args.down.tensor.data;
  params.gate_up_bias = args.gate_up_bias.data;
  params.down_bias = args.down_bias.data;
  params.out = args.out.data;
  params.x_stride = args.x.row_stride;
  params.routes_stride = args.routes.row_stride;
  params.gate_up_bias_stride = args.gate_up_bias.row_stride;
  params.down_bias_stride = args.down_bias.row_stride;
  params.out_stride = args.out.row_stride;
  params.num_tokens = num_tokens;
  params.num_experts = extent(down, 0);
  params.depth = extent(args.x.shape, 1);
  params.inner = extent(down, 2);
  params.width = extent(down, 1);
  params.gate = {args.attrs.activation, args.attrs.limit.has_value(), args.attrs.limit.value_or(0)};
  params.tile_rows = num_tokens <= kMaxNarrowTokens ? kNarrowTileRows : kWideTileRows;
  return params;
}

}  // namespace

Status route(TensorView logits,
             TensorView bias,
             const RouteAttrs& attrs,
             TensorView out,
             StreamView stream) {
  if (logits.shape[1] > kMaxRoutedExperts) {
    return unimplemented(
        fmt::format("route: {} experts, at most {} on a GPU", logits.shape[1], kMaxRoutedExperts));
  }
  const RouteParams params = {
      .logits = logits.as<float>(),
      .bias = bias.data,
      .out = out.as<float>(),
      .bias_element = bias.empty() ? ElementKind::kF32 : element_kind(bias.dtype),
      .logits_stride = logits.row_stride,
      .out_stride = out.row_stride,
      .num_tokens = logits.shape[0],
      .num_experts = extent(logits.shape, 1),
      .top_k = attrs.top_k,
      .num_groups = attrs.num_groups,
      .top_groups = attrs.top_groups,
      .is_softmax = attrs.scoring == RouteScoring::kSoftmax,
      .renormalize = attrs.renormalize,
      .scale = attrs.scale};
  return to_status(launch_route(params, raw(stream)), "route");
}

Status experts(const ExpertsArgs& args, StreamView stream) {
  ExpertsParams params = params_of(args);
  if (params.num_tokens == 0) return {};
  const size_t element_bytes = dtype_bytes(args.x.dtype);
  const Passes passes = passes_of(params, element_bytes);
  const size_t size_bytes = carve(passes, element_bytes, nullptr, params);
  LAMINA_ASSIGN_OR_RETURN(std::byte* const memory,
                          workspace(stream, WorkspaceUse::kExperts, size_bytes));
  carve(passes, element_bytes, memory, params);
  LAMINA_RETURN_IF_ERROR(
      to_status(launch_assignment(params, raw(stream)), "experts: laying tokens out"));
  for (int32_t begin = 0; begin < passes.max_tiles; begin += passes.pass_tiles) {
    params.first_tile = begin;
    params.pass_tiles = std::min(passes.pass_tiles, passes.max_tiles - begin);
    LAMINA_RETURN_IF_ERROR(
        to_status(launch_experts_pass(params, element_kind(args.x.dtype), raw(stream)), "experts"));
  }
  return {};
}

}  // namespace lamina::kernels::cuda
