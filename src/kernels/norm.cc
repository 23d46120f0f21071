#include "kernels/norm.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/norm.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

Status check_weights(std::string_view op,
                     const TensorView& weight,
                     const TensorView& bias,
                     const NormAttrs& attrs,
                     const Shape& shape,
                     DType dtype) {
  if (!(attrs.eps >= 0.0F)) return invalid_argument(fmt::format("{}: eps is {}", op, attrs.eps));
  LAMINA_RETURN_IF_ERROR(check_tensor(op, "weight", weight, shape, dtype));
  return bias.empty() ? Status() : check_tensor(op, "bias", bias, shape, dtype);
}

Status check_norm(const NormArgs& args) {
  const TensorView& x = args.x;
  LAMINA_RETURN_IF_ERROR(check_same("norm", x, args.out));
  if (x.shape.rank() < 2) return invalid_argument("norm: x needs a row axis");
  const bool by_head = x.shape.rank() == 3 && args.weight.shape.rank() == 2;
  const Shape shape = by_head ? Shape{x.shape[1], x.shape[2]} : Shape{x.shape[-1]};
  return check_weights("norm", args.weight, args.bias, args.attrs, shape, x.dtype);
}

Status check_add_norm(const AddNormArgs& args) {
  const TensorView& a = args.a;
  LAMINA_RETURN_IF_ERROR(check_float_tensor("add_norm", "a", a, 2));
  LAMINA_RETURN_IF_ERROR(check_tensor("add_norm", "b", args.b, a.shape, a.dtype));
  LAMINA_RETURN_IF_ERROR(
      check_tensor("add_norm", "out", args.out, {a.shape[0], 2, a.shape[1]}, a.dtype));
  return check_weights("add_norm", args.weight, args.bias, args.attrs, {a.shape[1]}, a.dtype);
}

}  // namespace

Status norm(const NormArgs& args, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_norm(args));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::norm(args, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::norm(args, stream);
  }
  return {};
}

Status add_norm(const AddNormArgs& args, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_add_norm(args));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::add_norm(args, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::add_norm(args, stream);
  }
  return {};
}

}  // namespace lamina::kernels
