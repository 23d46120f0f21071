#include "kernels/rows.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

// That every id, [S] i32, is in [0, limit), as far as the host can see them.
Status check_ids(std::string_view op, const TensorView& ids, int64_t limit, StreamView stream) {
  const int64_t count = ids.shape.rank() == 1 ? ids.shape[0] : 0;
  LAMINA_RETURN_IF_ERROR(check_tensor(op, "ids", ids, {count}, DType::kI32));
  if (stream.device().kind != DeviceKind::kCpu) return {};
  for (int64_t i = 0; i < count; ++i) {
    const int32_t id = *ids.row<int32_t>(i);
    if (id < 0 || id >= limit) {
      return invalid_argument(fmt::format("{}: id {} at {} of {} rows", op, id, i, limit));
    }
  }
  return {};
}

// The same, and that out is [S, row of table].
Status check_gather(std::string_view op,
                    const TensorView& table,
                    const TensorView& ids,
                    const TensorView& out,
                    int64_t limit,
                    StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_float(op, "source", table));
  LAMINA_RETURN_IF_ERROR(check_ids(op, ids, limit, stream));
  return check_tensor(op, "out", out, table.shape.with(0, ids.shape[0]), table.dtype);
}

Status check_packed_embedding(const PackedMatrix& table,
                              const TensorView& ids,
                              const TensorView& out,
                              StreamView stream) {
  constexpr std::string_view kOp = "embedding";
  LAMINA_RETURN_IF_ERROR(check_ids(kOp, ids, table.rows, stream));
  LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "out", out, 2));
  LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "out", out, {ids.shape[0], table.columns}, out.dtype));
  return check_weight(kOp, "table", table, {table.rows, table.columns}, DType::kBF16);
}

Status check_concat(const TensorView& a, const TensorView& b, const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor("concat", "a", a, 3));
  LAMINA_RETURN_IF_ERROR(check_float_tensor("concat", "b", b, 3));
  LAMINA_RETURN_IF_ERROR(
      check_tensor("concat", "b", b, {a.shape[0], a.shape[1], b.shape[2]}, a.dtype));
  return check_tensor(
      "concat", "out", out, {a.shape[0], a.shape[1], a.shape[2] + b.shape[2]}, a.dtype);
}

}  // namespace

Status embedding(const WeightView& table, TensorView ids, TensorView out, StreamView stream) {
  if (table.is_packed()) {
    LAMINA_RETURN_IF_ERROR(check_packed_embedding(table.packed, ids, out, stream));
  } else {
    const int64_t num_rows = table.shape().rank() > 0 ? table.shape()[0] : 0;
    LAMINA_RETURN_IF_ERROR(check_gather("embedding", table.tensor, ids, out, num_rows, stream));
  }
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      if (table.is_packed()) {
        cpu::unpack_rows(table.packed, ids, out, stream.pool());
      } else {
        cpu::gather_rows(table.tensor, ids, out, stream.pool());
      }
      return {};
    case DeviceKind::kCuda:
      if (table.is_packed()) return no_packed_weights("embedding");
      return cuda::embedding(table.tensor, ids, out, stream);
  }
  return {};
}

Status embedding_shard(
    TensorView table, int64_t first_id, TensorView ids, TensorView out, StreamView stream) {
  if (first_id < 0) {
    return invalid_argument(fmt::format("embedding_shard: first id {}", first_id));
  }
  LAMINA_RETURN_IF_ERROR(check_gather("embedding_shard", table, ids, out, INT64_MAX, stream));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::embedding_shard(table, first_id, ids, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::embedding_shard(table, first_id, ids, out, stream);
  }
  return {};
}

Status gather_rows(TensorView x, TensorView rows, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(
      check_gather("gather_rows", x, rows, out, x.shape.rank() > 0 ? x.shape[0] : 0, stream));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::gather_rows(x, rows, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::gather_rows(x, rows, out, stream);
  }
  return {};
}

Status concat(TensorView a, TensorView b, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_concat(a, b, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::concat(a, b, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::concat(a, b, out, stream);
  }
  return {};
}

}  // namespace lamina::kernels
