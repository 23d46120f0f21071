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

}  // namespace

Status linear(const LinearArgs& args, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(args));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::linear(args, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return unimplemented("linear: this build has no CUDA");
  }
  return {};
}

}  // namespace lamina::kernels
