#include "kernels/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/checked_math.h"

namespace lamina::kernels {

bool is_float(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return true;
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      return false;
  }
  return false;
}

std::string describe(const TensorView& view) {
  if (view.empty()) return "nothing";
  return fmt::format("{} {}", dtype_name(view.dtype), view.shape.to_string());
}

Status no_cuda(std::string_view op) {
  return unimplemented(fmt::format("{}: this build has no CUDA", op));
}

Status no_packed_weights(std::string_view op) {
  return unimplemented(fmt::format("{}: GPUs take weights as they are, not packed", op));
}

Status check_float(std::string_view op, std::string_view name, const TensorView& view) {
  if (view.shape.rank() >= 1) return check_float_tensor(op, name, view, view.shape.rank());
  return invalid_argument(fmt::format("{}: {} is a scalar", op, name));
}

Status check_same(std::string_view op, const TensorView& x, const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float(op, "x", x));
  return check_tensor(op, "out", out, x.shape, x.dtype);
}

Status check_tensor(std::string_view op,
                    std::string_view name,
                    const TensorView& view,
                    const Shape& shape,
                    DType dtype) {
  const bool is_absent = view.empty() && shape.num_elements() > 0;
  if (!is_absent && view.shape == shape && view.dtype == dtype) return {};
  return invalid_argument(fmt::format("{}: {} is {}, wanted {} {}",
                                      op,
                                      name,
                                      describe(view),
                                      dtype_name(dtype),
                                      shape.to_string()));
}

Status check_float_tensor(std::string_view op,
                          std::string_view name,
                          const TensorView& view,
                          int rank) {
  bool is_good = is_float(view.dtype) && view.shape.rank() == rank;
  for (int axis = 1; is_good && axis < rank; ++axis) is_good = view.shape[axis] > 0;
  if (is_good && (!view.empty() || view.shape[0] == 0)) return {};
  return invalid_argument(
      fmt::format("{}: {} is {}, wanted floats of rank {}", op, name, describe(view), rank));
}

Status check_weight(std::string_view op,
                    std::string_view name,
                    const WeightView& weight,
                    const Shape& shape,
                    DType x_dtype) {
  if (!weight.is_packed()) {
    LAMINA_RETURN_IF_ERROR(check_float_tensor(op, name, weight.tensor, shape.rank()));
    LAMINA_RETURN_IF_ERROR(check_tensor(op, name, weight.tensor, shape, x_dtype));
    if (weight.tensor.is_contiguous()) return {};
    return invalid_argument(fmt::format("{}: {} is not contiguous", op, name));
  }
  const PackedMatrix& packed = weight.packed;
  if (packed.shape() != shape || packed.columns % kBlockColumns != 0) {
    return invalid_argument(fmt::format("{}: {} is packed {}, wanted {} in blocks of {} columns",
                                        op,
                                        name,
                                        packed.shape().to_string(),
                                        shape.to_string(),
                                        kBlockColumns));
  }
  if (is_quantized(packed.format) || x_dtype == DType::kBF16) return {};
  return invalid_argument(fmt::format("{}: {} is of bf16, x of {}", op, name, dtype_name(x_dtype)));
}

namespace {

Status check_sequence(std::string_view op, const RaggedBatch& batch, int64_t block_size, size_t b) {
  const int64_t num_queries = int64_t{batch.query_begin[b + 1]} - batch.query_begin[b];
  const int64_t context = batch.context_len[b];
  if (num_queries < 0 || context < num_queries) {
    return invalid_argument(
        fmt::format("{}: sequence {} has {} queries and {} tokens", op, b, num_queries, context));
  }
  const int64_t num_blocks = ceil_div(context, block_size);
  if (num_queries == 0 || num_blocks <= batch.max_blocks) return {};
  return invalid_argument(fmt::format(
      "{}: sequence {} needs {} blocks, tables hold {}", op, b, num_blocks, batch.max_blocks));
}

// Of a sequence with queries.
Status check_block_ids(std::string_view op,
                       const RaggedBatch& batch,
                       const TensorView& cache,
                       size_t b,
                       int64_t window) {
  const int64_t num_queries = int64_t{batch.query_begin[b + 1]} - batch.query_begin[b];
  const int64_t context = batch.context_len[b];
  const int64_t block_size = cache.shape[2];
  const int64_t first_read =
      window < 0 ? 0 : std::clamp<int64_t>(context - num_queries - window + 1, 0, context - 1);
  const auto table = batch.block_tables.subspan(b * static_cast<size_t>(batch.max_blocks),
                                                static_cast<size_t>(ceil_div(context, block_size)));
  const std::optional<int32_t> bad =
      find_bad_block(table.subspan(static_cast<size_t>(first_read / block_size)), cache.shape[0]);
  if (!bad) return {};
  return invalid_argument(
      fmt::format("{}: sequence {} names block {} of {}", op, b, *bad, cache.shape[0]));
}

}  // namespace

std::optional<int32_t> find_bad_block(std::span<const int32_t> table, int64_t num_blocks) {
  const auto bad = std::ranges::find_if(
      table, [&](int32_t id) { return id != kNoBlock && (id < 0 || id >= num_blocks); });
  return bad == table.end() ? std::nullopt : std::optional(*bad);
}

Status check_bounds(std::string_view op,
                    const RaggedBatch& batch,
                    int64_t block_size,
                    int64_t num_tokens) {
  const size_t num_sequences = batch.context_len.size();
  // Sizes come from a message: nothing is multiplied before it is known to be small.
  const auto table_size = batch.max_blocks < 0
                              ? std::nullopt
                              : checked_mul(num_sequences, static_cast<size_t>(batch.max_blocks));
  if (batch.query_begin.size() != num_sequences + 1 || !table_size ||
      batch.block_tables.size() != *table_size) {
    return invalid_argument(
        fmt::format("{}: {} query bounds, {} contexts, {} table entries in rows of {}",
                    op,
                    batch.query_begin.size(),
                    num_sequences,
                    batch.block_tables.size(),
                    batch.max_blocks));
  }
  if (batch.query_begin.front() != 0 || batch.query_begin.back() != num_tokens) {
    return invalid_argument(fmt::format("{}: queries [{}, {}) of {} tokens",
                                        op,
                                        batch.query_begin.front(),
                                        batch.query_begin.back(),
                                        num_tokens));
  }
  for (size_t b = 0; b < num_sequences; ++b) {
    LAMINA_RETURN_IF_ERROR(check_sequence(op, batch, block_size, b));
  }
  return {};
}

Status check_batch(std::string_view op,
                   const RaggedBatch& batch,
                   const TensorView& cache,
                   int64_t num_tokens,
                   int64_t window) {
  LAMINA_RETURN_IF_ERROR(check_bounds(op, batch, cache.shape[2], num_tokens));
  for (size_t b = 0; b < batch.context_len.size(); ++b) {
    if (batch.query_begin[b] == batch.query_begin[b + 1]) continue;
    LAMINA_RETURN_IF_ERROR(check_block_ids(op, batch, cache, b, window));
  }
  return {};
}

}  // namespace lamina::kernels
