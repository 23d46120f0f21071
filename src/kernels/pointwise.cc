#include "kernels/pointwise.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/pointwise.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

Status check_binary(std::string_view op,
                    const TensorView& a,
                    const TensorView& b,
                    const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_same(op, a, out));
  return check_tensor(op, "b", b, a.shape, a.dtype);
}

bool is_row_factor(const TensorView& a, const TensorView& b) {
  return a.shape.rank() == 2 && a.shape[1] != 1 && b.shape == Shape{a.shape[0], 1};
}

Status check_mul(const TensorView& a, const TensorView& b, const TensorView& out) {
  if (!is_row_factor(a, b)) return check_binary("mul", a, b, out);
  LAMINA_RETURN_IF_ERROR(check_same("mul", a, out));
  return check_tensor("mul", "b", b, b.shape, a.dtype);
}

Status check_gated(const TensorView& x, const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor("gated_activation", "x", x, 3));
  if (x.shape[1] != 2) return invalid_argument("gated_activation: x is not [T, 2, N]");
  return check_tensor("gated_activation", "out", out, {x.shape[0], x.shape[2]}, x.dtype);
}

}  // namespace

Status add(TensorView a, TensorView b, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_binary("add", a, b, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::add(a, b, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::add(a, b, out, stream);
  }
  return {};
}

Status mul(TensorView a, TensorView b, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_mul(a, b, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      if (is_row_factor(a, b)) {
        cpu::mul_rows(a, b, out, stream.pool());
      } else {
        cpu::mul(a, b, out, stream.pool());
      }
      return {};
    case DeviceKind::kCuda:
      return cuda::mul(a, b, out, stream);
  }
  return {};
}

Status scale(TensorView x, float factor, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_same("scale", x, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::scale(x, factor, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::scale(x, factor, out, stream);
  }
  return {};
}

Status soft_cap(TensorView x, float cap, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_same("soft_cap", x, out));
  if (!(cap > 0.0F)) return invalid_argument(fmt::format("soft_cap: cap is {}", cap));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::soft_cap(x, cap, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::soft_cap(x, cap, out, stream);
  }
  return {};
}

Status activation(TensorView x, Activation kind, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_same("activation", x, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::activation(x, kind, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::activation(x, kind, out, stream);
  }
  return {};
}

Status gated_activation(TensorView x,
                        const GatedActivationAttrs& attrs,
                        TensorView out,
                        StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_gated(x, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::gated_activation(x, attrs, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::gated_activation(x, attrs, out, stream);
  }
  return {};
}

}  // namespace lamina::kernels
