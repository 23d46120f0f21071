#include "kernels/attention.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/append_kv.h"
#include "kernels/cpu/merge_partials.h"
#include "kernels/cpu/ragged_attention.h"
#include "kernels/cpu/ragged_attention_bf16.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

// Of floats, or of codes with the scales that belong to them.
Status check_cache(std::string_view op,
                   std::string_view name,
                   const TensorView& cache,
                   const TensorView& scales) {
  if (!is_quantized(cache.dtype)) {
    LAMINA_RETURN_IF_ERROR(check_float_tensor(op, name, cache, 4));
    if (scales.empty()) return {};
    return invalid_argument(fmt::format("{}: scales {} of {}", op, describe(scales), name));
  }
  TensorView as_floats = cache;  // which has to be of the same form
  as_floats.dtype = DType::kF32;
  LAMINA_RETURN_IF_ERROR(check_float_tensor(op, name, as_floats, 4));
  const Shape wanted = {cache.shape[0], cache.shape[1], cache.shape[2]};
  return check_tensor(op, "scales", scales, wanted, DType::kF32);
}

// v_cache is like k_cache but for the width of its rows; empty where values lie in the keys.
template <typename Args>
Status check_caches(std::string_view op, const Args& args) {
  LAMINA_RETURN_IF_ERROR(check_cache(op, "k_cache", args.k_cache, args.k_scales));
  if (args.v_cache.empty()) return {};
  LAMINA_RETURN_IF_ERROR(check_cache(op, "v_cache", args.v_cache, args.v_scales));
  const Shape wanted = args.k_cache.shape.with(3, args.v_cache.shape[3]);
  return check_tensor(op, "v_cache", args.v_cache, wanted, args.k_cache.dtype);
}

// Per-head parameters: one for each head, or none.
Status check_per_head(std::string_view name, std::span<const float> values, int64_t num_heads) {
  if (values.empty() || static_cast<int64_t>(values.size()) == num_heads) return {};
  return invalid_argument(
      fmt::format("ragged_attention: {} {} for {} heads", values.size(), name, num_heads));
}

Status check_parameters(const RaggedAttentionArgs& args) {
  if (args.window && *args.window < 0) {
    return invalid_argument(fmt::format("ragged_attention: window {}", *args.window));
  }
  if (args.soft_cap && !(*args.soft_cap > 0.0F)) {
    return invalid_argument(fmt::format("ragged_attention: soft cap {}", *args.soft_cap));
  }
  LAMINA_RETURN_IF_ERROR(check_per_head("slopes", args.alibi_slopes, args.q.shape[1]));
  return check_per_head("sinks", args.sinks, args.q.shape[1]);
}

KvShape shape_of(const TensorView& k_cache,
                 const TensorView& v_cache,
                 DType q_dtype,
                 Device device) {
  return {.dtype = k_cache.dtype,
          .q_dtype = q_dtype,
          .block_size = k_cache.shape[2],
          .key_dim = k_cache.shape[3],
          .value_dim = v_cache.empty() ? 0 : v_cache.shape[3],
          .device = device};
}

Status check_order(std::string_view op,
                   KvOrder order,
                   const TensorView& k_cache,
                   const TensorView& v_cache,
                   DType q_dtype,
                   Device device) {
  if (order == KvOrder::kRows) return {};
  if (preferred_order(shape_of(k_cache, v_cache, q_dtype, device)) == order) return {};
  return invalid_argument(fmt::format("{}: not the order of k_cache {}, v_cache {} for {}",
                                      op,
                                      describe(k_cache),
                                      describe(v_cache),
                                      dtype_name(q_dtype)));
}

Status check_slots(const AppendKvArgs& args) {
  const auto num_tokens = static_cast<size_t>(args.k.shape[0]);
  const int64_t num_slots = args.k_cache.shape[0] * args.k_cache.shape[2];
  if (args.slot_mapping.size() != num_tokens) {
    return invalid_argument(
        fmt::format("append_kv: {} slots for {} tokens", args.slot_mapping.size(), num_tokens));
  }
  for (const int64_t slot : args.slot_mapping) {
    if (slot == kNoSlot || (slot >= 0 && slot < num_slots)) continue;
    return invalid_argument(fmt::format("append_kv: slot {} of {}", slot, num_slots));
  }
  return {};
}

Status check(const AppendKvArgs& args, Device device) {
  constexpr std::string_view kOp = "append_kv";
  LAMINA_RETURN_IF_ERROR(check_caches(kOp, args));
  LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "k", args.k, 3));
  const Shape wanted = {args.k.shape[0], args.k_cache.shape[1], args.k_cache.shape[3]};
  LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "k", args.k, wanted, args.k.dtype));
  if (args.v.empty() != args.v_cache.empty() && args.k.shape[0] > 0) {
    return invalid_argument(
        fmt::format("{}: v is {}, v_cache {}", kOp, describe(args.v), describe(args.v_cache)));
  }
  if (!args.v_cache.empty()) {
    LAMINA_RETURN_IF_ERROR(
        check_tensor(kOp, "v", args.v, wanted.with(2, args.v_cache.shape[3]), args.k.dtype));
  }
  // Codes come from any float; others must be copied as they are.
  const DType q_dtype = is_quantized(args.k_cache.dtype) ? DType::kBF16 : args.k.dtype;
  LAMINA_RETURN_IF_ERROR(check_order(kOp, args.order, args.k_cache, args.v_cache, q_dtype, device));
  return device.kind == DeviceKind::kCpu ? check_slots(args) : Status();
}

// Where values are as wide as nothing says, in a latent cache, `out` or `state` says it.
int64_t value_dim_of(const RaggedAttentionArgs& args) {
  if (!args.v_cache.empty()) return args.v_cache.shape[3];
  return args.phase == AttentionPhase::kCached ? attention_state_value_dim(args.state.shape[2])
                                               : args.out.shape[2];
}

Status check_outputs(const RaggedAttentionArgs& args) {
  constexpr std::string_view kOp = "ragged_attention";
  const Shape rows = {args.q.shape[0], args.q.shape[1]};
  const bool has_state = args.phase != AttentionPhase::kWhole;
  const bool has_out = args.phase != AttentionPhase::kCached;
  if (has_state) LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "state", args.state, 3));
  if (has_out) LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "out", args.out, 3));
  const int64_t value_dim = value_dim_of(args);
  if (args.v_cache.empty() && value_dim > args.k_cache.shape[3]) {
    return invalid_argument(
        fmt::format("{}: values of {} in keys of {}", kOp, value_dim, args.k_cache.shape[3]));
  }
  if (has_state) {
    const Shape wanted = {rows[0], rows[1], attention_state_dim(value_dim)};
    LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "state", args.state, wanted, DType::kF32));
  }
  if (!has_out) return {};
  const DType out_dtype = args.out.dtype == DType::kF32 ? DType::kF32 : args.q.dtype;
  LAMINA_RETURN_IF_ERROR(
      check_tensor(kOp, "out", args.out, {rows[0], rows[1], value_dim}, out_dtype));
  return args.lse.empty() ? Status() : check_tensor(kOp, "lse", args.lse, rows, DType::kF32);
}

Status check(const RaggedAttentionArgs& args, Device device) {
  constexpr std::string_view kOp = "ragged_attention";
  LAMINA_RETURN_IF_ERROR(check_caches(kOp, args));
  LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "q", args.q, 3));
  const int64_t num_tokens = args.q.shape[0];
  const int64_t num_heads = args.q.shape[1];
  const int64_t num_kv_heads = args.k_cache.shape[1];
  if (num_heads % num_kv_heads != 0 || args.q.shape[2] != args.k_cache.shape[3]) {
    return invalid_argument(
        fmt::format("{}: q is {}, k_cache {}", kOp, describe(args.q), describe(args.k_cache)));
  }
  LAMINA_RETURN_IF_ERROR(check_outputs(args));
  LAMINA_RETURN_IF_ERROR(check_parameters(args));
  LAMINA_RETURN_IF_ERROR(
      check_order(kOp, args.order, args.k_cache, args.v_cache, args.q.dtype, device));
  if (device.kind != DeviceKind::kCpu) return {};
  const int64_t window = args.window ? *args.window : -1;
  return check_batch(kOp, args.batch, args.k_cache, num_tokens, window);
}

Status check(const AttentionPartial& into, const AttentionPartial& from) {
  constexpr std::string_view kOp = "merge_partials";
  LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "into.out", into.out, 3));
  const Shape lse_shape = {into.out.shape[0], into.out.shape[1]};
  LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "into.out", into.out, into.out.shape, DType::kF32));
  LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "into.lse", into.lse, lse_shape, DType::kF32));
  LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "from.out", from.out, into.out.shape, DType::kF32));
  return check_tensor(kOp, "from.lse", from.lse, lse_shape, DType::kF32);
}

}  // namespace

KvOrder preferred_order(const KvShape& shape) {
  if (shape.device.kind == DeviceKind::kCuda) {
    return cuda::reads_swizzled(shape) ? KvOrder::kSwizzled : KvOrder::kRows;
  }
  return cpu::reads_pairs(shape) ? KvOrder::kPairs : KvOrder::kRows;
}

Status append_kv(const AppendKvArgs& args, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(args, stream.device()));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::append_kv(args, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::append_kv(args, stream);
  }
  return {};
}

Status ragged_attention(const RaggedAttentionArgs& args, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(args, stream.device()));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::ragged_attention(args, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::ragged_attention(args, stream);
  }
  return {};
}

Status merge_partials(const AttentionPartial& into,
                      const AttentionPartial& from,
                      StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(into, from));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::merge_partials(into, from, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::merge_partials(into, from, stream);
  }
  return {};
}

}  // namespace lamina::kernels
