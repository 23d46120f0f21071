#include "kernels/pointwise.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/pointwise.h"

namespace lamina::kernels {
namespace {

Status no_cuda(std::string_view op) {
  return unimplemented(fmt::format("{}: this build has no CUDA", op));
}

// A float view of any rank.
Status check_float(std::string_view op, std::string_view name, const TensorView& view) {
  if (view.shape.rank() >= 1) return check_float_tensor(op, name, view, view.shape.rank());
  return invalid_argument(fmt::format("{}: {} is a scalar", op, name));
}

Status check_same(std::string_view op, const TensorView& x, const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float(op, "x", x));
  return check_tensor(op, "out", out, x.shape, x.dtype);
}

// That every id, [S] i32, is a row of `table`, and that out is [S, row of table].
Status check_gather(std::string_view op,
                    const TensorView& table,
                    const TensorView& ids,
                    const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float(op, "source", table));
  const int64_t count = ids.shape.rank() == 1 ? ids.shape[0] : 0;
  LAMINA_RETURN_IF_ERROR(check_tensor(op, "ids", ids, {count}, DType::kI32));
  LAMINA_RETURN_IF_ERROR(check_tensor(op, "out", out, table.shape.with(0, count), table.dtype));
  for (int64_t i = 0; i < count; ++i) {
    const int32_t id = *ids.row<int32_t>(i);
    if (id < 0 || id >= table.shape[0]) {
      return invalid_argument(fmt::format("{}: id {} at {} of {} rows", op, id, i, table.shape[0]));
    }
  }
  return {};
}

Status check_rms_norm(const TensorView& x, const TensorView& weight, const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_same("rms_norm", x, out));
  if (x.shape.rank() < 2) return invalid_argument("rms_norm: x needs a row axis");
  return check_tensor("rms_norm", "weight", weight, {x.shape[-1]}, x.dtype);
}

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

Status check_binary(std::string_view op,
                    const TensorView& a,
                    const TensorView& b,
                    const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_same(op, a, out));
  return check_tensor(op, "b", b, a.shape, a.dtype);
}

}  // namespace

Status embedding(TensorView table, TensorView ids, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_gather("embedding", table, ids, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::gather_rows(table, ids, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return no_cuda("embedding");
  }
  return {};
}

Status rms_norm(TensorView x, TensorView weight, float eps, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_rms_norm(x, weight, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::rms_norm(x, weight, eps, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return no_cuda("rms_norm");
  }
  return {};
}

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
      return no_cuda("rope_table");
  }
  return {};
}

Status rope(TensorView x, TensorView table, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_rope(x, table, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::rope(x, table, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return no_cuda("rope");
  }
  return {};
}

Status add(TensorView a, TensorView b, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_binary("add", a, b, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::add(a, b, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return no_cuda("add");
  }
  return {};
}

Status mul(TensorView a, TensorView b, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_binary("mul", a, b, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::mul(a, b, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return no_cuda("mul");
  }
  return {};
}

Status silu(TensorView x, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_same("silu", x, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::silu(x, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return no_cuda("silu");
  }
  return {};
}

Status gather_rows(TensorView x, TensorView rows, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_gather("gather_rows", x, rows, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::gather_rows(x, rows, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return no_cuda("gather_rows");
  }
  return {};
}

}  // namespace lamina::kernels
