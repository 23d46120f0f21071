#include "kernels/rope.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/rope.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

Status check_rope_table(const TensorView& positions,
                        std::span<const float> inv_freq,
                        const TensorView& out) {
  const int64_t count = positions.shape.rank() == 1 ? positions.shape[0] : 0;
  LAMINA_RETURN_IF_ERROR(check_tensor("rope_table", "positions", positions, {count}, DType::kI32));
  const auto width = 2 * static_cast<int64_t>(inv_freq.size());
  return check_tensor("rope_table", "out", out, {count, width}, DType::kF32);
}

Status check_rope(const TensorView& x, const TensorView& table, const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor("rope", "x", x, 3));
  LAMINA_RETURN_IF_ERROR(check_tensor("rope", "out", out, x.shape, x.dtype));
  const int64_t width = table.shape.rank() == 2 ? table.shape[1] : 0;
  LAMINA_RETURN_IF_ERROR(check_tensor("rope", "table", table, {x.shape[0], width}, DType::kF32));
  if (width % 2 == 0 && width <= x.shape[2]) return {};
  return invalid_argument(
      fmt::format("rope: {} rotated elements of a head of {}", width, x.shape[2]));
}

}  // namespace

Status rope_table(TensorView positions,
                  std::span<const float> inv_freq,
                  float magnitude,
                  TensorView out,
                  StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_rope_table(positions, inv_freq, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::rope_table(positions, inv_freq, magnitude, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::rope_table(positions, inv_freq, magnitude, out, stream);
  }
  return {};
}

Status rope(TensorView x, TensorView table, bool interleaved, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_rope(x, table, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::rope(x, table, interleaved, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::rope(x, table, interleaved, out, stream);
  }
  return {};
}

}  // namespace lamina::kernels
