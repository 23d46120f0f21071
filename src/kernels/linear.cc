#include "kernels/linear.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/linear.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

Status check(const LinearArgs& args) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor("linear", "x", args.x, 2));
  const int64_t num_tokens = args.x.shape[0];
  const Shape weight = args.weight.shape();
  const int64_t num_columns = weight.rank() == 2 ? weight[0] : 0;
  LAMINA_RETURN_IF_ERROR(
      check_weight("linear", "weight", args.weight, {num_columns, args.x.shape[1]}, args.x.dtype));
  if (!args.bias.empty()) {
    LAMINA_RETURN_IF_ERROR(check_tensor("linear", "bias", args.bias, {num_columns}, args.x.dtype));
  }
  const DType out_dtype = args.out.dtype == DType::kF32 ? DType::kF32 : args.x.dtype;
  return check_tensor("linear", "out", args.out, {num_tokens, num_columns}, out_dtype);
}

Status check_head_linear(const TensorView& x, const WeightView& weight, const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor("head_linear", "x", x, 3));
  const int64_t num_heads = x.shape[1];
  const Shape shape = weight.shape();
  const int64_t width = shape.rank() == 3 ? shape[1] : 0;
  LAMINA_RETURN_IF_ERROR(
      check_weight("head_linear", "weight", weight, {num_heads, width, x.shape[2]}, x.dtype));
  return check_tensor("head_linear", "out", out, {x.shape[0], num_heads, width}, x.dtype);
}

}  // namespace

Status head_linear(TensorView x, const WeightView& weight, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_head_linear(x, weight, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::head_linear(x, weight, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      if (weight.is_packed()) return no_packed_weights("head_linear");
      return cuda::head_linear(x, weight.tensor, out, stream);
  }
  return {};
}

Status linear(const LinearArgs& args, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(args));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::linear(args, stream.pool());
      return {};
    case DeviceKind::kCuda:
      if (args.weight.is_packed()) return no_packed_weights("linear");
      return cuda::linear(args, stream);
  }
  return {};
}

bool has_fast_products(PackedFormat format) {
  return cpu::multiplies_packed(format);
}

}  // namespace lamina::kernels
