#include "kernels/linear.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/linear.h"

namespace lamina::kernels {
namespace {

Status check(const LinearArgs& args) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor("linear", "x", args.x, 2));
  LAMINA_RETURN_IF_ERROR(check_float_tensor("linear", "weight", args.weight, 2));
  const int64_t num_tokens = args.x.shape[0];
  const int64_t num_columns = args.weight.shape[0];
  LAMINA_RETURN_IF_ERROR(
      check_tensor("linear", "weight", args.weight, {num_columns, args.x.shape[1]}, args.x.dtype));
  if (!args.weight.is_contiguous()) return invalid_argument("linear: weight is not contiguous");
  if (!args.bias.empty()) {
    LAMINA_RETURN_IF_ERROR(check_tensor("linear", "bias", args.bias, {num_columns}, args.x.dtype));
  }
  const DType out_dtype = args.out.dtype == DType::kF32 ? DType::kF32 : args.x.dtype;
  return check_tensor("linear", "out", args.out, {num_tokens, num_columns}, out_dtype);
}

Status check_head_linear(const TensorView& x, const TensorView& weight, const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor("head_linear", "x", x, 3));
  LAMINA_RETURN_IF_ERROR(check_float_tensor("head_linear", "weight", weight, 3));
  const int64_t num_heads = x.shape[1];
  LAMINA_RETURN_IF_ERROR(check_tensor(
      "head_linear", "weight", weight, {num_heads, weight.shape[1], x.shape[2]}, x.dtype));
  if (!weight.is_contiguous()) return invalid_argument("head_linear: weight is not contiguous");
  return check_tensor("head_linear", "out", out, {x.shape[0], num_heads, weight.shape[1]}, x.dtype);
}

}  // namespace

Status head_linear(TensorView x, TensorView weight, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_head_linear(x, weight, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::head_linear(x, weight, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return no_cuda("head_linear");
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
      return no_cuda("linear");
  }
  return {};
}

}  // namespace lamina::kernels
