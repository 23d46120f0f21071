#include "kernels/parts.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/parts.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

Status check_sum(std::span<const TensorView> parts, const TensorView& out) {
  if (parts.empty() || out.shape.rank() < 1) return invalid_argument("sum_parts: nothing to sum");
  LAMINA_RETURN_IF_ERROR(check_float_tensor("sum_parts", "out", out, out.shape.rank()));
  for (const TensorView& part : parts) {
    LAMINA_RETURN_IF_ERROR(check_tensor("sum_parts", "part", part, out.shape, out.dtype));
  }
  return {};
}

Status check_join(std::span<const TensorView> parts, const TensorView& out) {
  if (parts.empty()) return invalid_argument("join_columns: nothing to join");
  LAMINA_RETURN_IF_ERROR(check_float_tensor("join_columns", "out", out, 2));
  const auto num_parts = static_cast<int64_t>(parts.size());
  if (out.shape[1] % num_parts != 0) {
    return invalid_argument(
        fmt::format("join_columns: {} columns of {} parts", out.shape[1], num_parts));
  }
  for (const TensorView& part : parts) {
    LAMINA_RETURN_IF_ERROR(check_tensor(
        "join_columns", "part", part, {out.shape[0], out.shape[1] / num_parts}, out.dtype));
  }
  return {};
}

}  // namespace

Status sum_parts(std::span<const TensorView> parts, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_sum(parts, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::sum_parts(parts, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::sum_parts(parts, out, stream);
  }
  return {};
}

Status join_columns(std::span<const TensorView> parts, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_join(parts, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::join_columns(parts, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::join_columns(parts, out, stream);
  }
  return {};
}

}  // namespace lamina::kernels
