// Attention and append on CUDA: which kernel takes a call, and its arguments as the kernel has
// them.
#include <fmt/format.h>

#include "device/cuda/error.h"
#include "kernels/checks.h"
#include "kernels/cuda/attention/append_codes.cuh"
#include "kernels/cuda/attention/append_kv.cuh"
#include "kernels/cuda/attention/attention_general.cuh"
#include "kernels/cuda/attention/attention_launch.h"
#include "kernels/cuda/attention/attention_rest.cuh"
#include "kernels/cuda/operators.h"
#include "kernels/cuda/step_tables.h"

namespace lamina::kernels::cuda {
namespace {

constexpr size_t kVectorBytes = 16;

bool is_16_bit(DType dtype) {
  return dtype == DType::kF16 || dtype == DType::kBF16;
}

// What a kernel knows the cache's dtype by: one that reads_swizzled() admits.
CacheElement cache_element(DType dtype) {
  if (dtype == DType::kF8E4M3) return CacheElement::kE4M3;
  if (dtype == DType::kI8) return CacheElement::kI8;
  return dtype == DType::kF16 ? CacheElement::kF16 : CacheElement::kBF16;
}

const float* scales_or_null(const TensorView& scales) {
  return scales.empty() ? nullptr : scales.as<float>();
}

bool starts_at_vectors(const TensorView& view) {
  const size_t stride = static_cast<size_t>(view.row_stride) * dtype_bytes(view.dtype);
  return reinterpret_cast<uintptr_t>(view.data) % kVectorBytes == 0 && stride % kVectorBytes == 0;
}

int32_t as_i32(int64_t value) {
  return static_cast<int32_t>(value);
}

int64_t value_dim(const RaggedAttentionArgs& args) {
  if (!args.v_cache.empty()) return args.v_cache.shape[3];
  return args.phase == AttentionPhase::kCached ? attention_state_value_dim(args.state.shape[2])
                                               : args.out.shape[2];
}

// What kCached leaves in the state: the attention over the keys that it meets, without sinks.
struct CachedPartial {
  float* outs;  // [T, Hq, Dv]
  float* lses;  // [T, Hq]
};
CachedPartial cached_partial(const RaggedAttentionArgs& args) {
  auto* outs = args.state.as<float>();
  return {outs, outs + args.q.shape[0] * args.q.shape[1] * value_dim(args)};
}

AttentionParams fast_params(const RaggedAttentionArgs& args, const StepTables::Impl& tables) {
  AttentionParams params{};
  params.q = args.q.data;
  params.q_stride = args.q.row_stride;
  params.k_cache = args.k_cache.data;
  params.v_cache = args.v_cache.data;
  params.k_scales = scales_or_null(args.k_scales);
  params.v_scales = scales_or_null(args.v_scales);
  params.out = args.out.data;
  params.lse = args.lse.empty() ? nullptr : args.lse.as<float>();
  params.block_tables = tables.device(tables.block_tables);
  params.max_blocks = tables.max_blocks;
  params.num_heads = as_i32(args.q.shape[1]);
  params.num_kv_heads = as_i32(args.k_cache.shape[1]);
  params.block_size = as_i32(args.k_cache.shape[2]);
  params.scale = args.scale;
  params.soft_cap = args.soft_cap.value_or(0.0F);
  params.window = args.window.value_or(0);
  params.alibi_slopes = args.alibi_slopes.empty() ? nullptr : args.alibi_slopes.data();
  params.sinks = args.sinks.empty() ? nullptr : args.sinks.data();
  params.out_is_f32 = args.out.dtype == DType::kF32;
  params.progress = tables.device(tables.progress);
  if (args.phase == AttentionPhase::kCached) {
    const CachedPartial partial = cached_partial(args);
    params.out = partial.outs;
    params.lse = partial.lses;
    params.sinks = nullptr;
    params.out_is_f32 = true;
  }
  return params;
}

// The items of a window: all of the step's attention, or what kCached does of it.
Status launch_items(const RaggedAttentionArgs& args,
                    const StepTables::Impl& tables,
                    StreamView stream) {
  const StepTables::Impl::Window* window = tables.find(args.window.value_or(0));
  if (window == nullptr) {
    return invalid_argument(fmt::format("ragged_attention: a window of {} has no work prepared",
                                        args.window.value_or(0)));
  }
  AttentionParams params = fast_params(args, tables);
  const CacheElement cached = cache_element(args.k_cache.dtype);
  for (const bool is_wide : {false, true}) {
    const StepItems& items = is_wide ? window->wide : window->narrow;
    if (items.items.size == 0) continue;
    const StepTables::Impl::Workspace& workspace = is_wide ? tables.wide : tables.narrow;
    const int32_t* counts = tables.device(items.counts);
    params.items = {tables.device(items.items),
                    as_i32(items.items.capacity),
                    counts,
                    items.merges.size == 0 ? nullptr : tables.device(items.merges),
                    counts + 1};
    params.merged_rows = items.merged_rows;
    params.most_merges = as_i32(args.q.shape[0]) * (is_wide ? params.num_heads : 1);
    params.partial_outs = reinterpret_cast<float*>(workspace.outs.data());
    params.partial_lses = reinterpret_cast<float*>(workspace.lses.data());
    LAMINA_RETURN_IF_ERROR(lamina::cuda::to_status(
        launch_attention(
            params, cached, as_i32(args.q.shape[2]), is_wide, lamina::cuda::raw(stream)),
        "ragged_attention"));
  }
  return {};
}

// What kRest does where kCached has done something.
Status launch_rest(const RaggedAttentionArgs& args,
                   const StepTables::Impl& tables,
                   StreamView stream) {
  const CachedPartial partial = cached_partial(args);
  AttentionRestParams params{};
  params.q = args.q.data;
  params.q_stride = args.q.row_stride;
  params.k_cache = args.k_cache.data;
  params.v_cache = args.v_cache.data;
  params.k_scales = scales_or_null(args.k_scales);
  params.v_scales = scales_or_null(args.v_scales);
  params.out = args.out.data;
  params.lse = args.lse.empty() ? nullptr : args.lse.as<float>();
  params.cached_outs = partial.outs;
  params.cached_lses = partial.lses;
  params.tokens = tables.device(tables.new_tokens);
  params.num_tokens = tables.device(tables.num_new_tokens);
  params.max_tokens = as_i32(args.q.shape[0]);
  params.num_heads = as_i32(args.q.shape[1]);
  params.num_kv_heads = as_i32(args.k_cache.shape[1]);
  params.head_dim = as_i32(args.q.shape[2]);
  params.value_dim = as_i32(value_dim(args));
  params.block_size = as_i32(args.k_cache.shape[2]);
  params.scale = args.scale;
  params.soft_cap = args.soft_cap.value_or(0.0F);
  params.window = args.window.value_or(0);
  params.sinks = args.sinks.empty() ? nullptr : args.sinks.data();
  params.out_is_f32 = args.out.dtype == DType::kF32;
  return lamina::cuda::to_status(
      launch_attention_rest(params, cache_element(args.k_cache.dtype), lamina::cuda::raw(stream)),
      "ragged_attention");
}

// A step that is not split is all kRest's.
Status launch_fast(const RaggedAttentionArgs& args,
                   const StepTables::Impl& tables,
                   StreamView stream) {
  if (args.v_cache.empty() && value_dim(args) != kLatentValueDim) {
    return unimplemented(fmt::format("ragged_attention: values of {} in keys of {}: {} alone",
                                     value_dim(args),
                                     args.k_cache.shape[3],
                                     kLatentValueDim));
  }
  if (args.phase == AttentionPhase::kRest && tables.is_split) {
    return launch_rest(args, tables, stream);
  }
  if (args.phase == AttentionPhase::kCached && !tables.is_split) return {};
  return launch_items(args, tables, stream);
}

Status launch_general(const RaggedAttentionArgs& args,
                      const StepTables::Impl& tables,
                      StreamView stream) {
  GeneralAttentionParams params{};
  params.q = args.q.data;
  params.q_stride = args.q.row_stride;
  params.k_cache = args.k_cache.data;
  params.v_cache = args.v_cache.empty() ? nullptr : args.v_cache.data;
  params.k_scales = scales_or_null(args.k_scales);
  params.v_scales = scales_or_null(args.v_scales);
  params.out = args.out.data;
  params.lse = args.lse.empty() ? nullptr : args.lse.as<float>();
  params.query_begin = tables.device(tables.query_begin);
  params.context_len = tables.device(tables.context_len);
  params.block_tables = tables.device(tables.block_tables);
  params.max_blocks = tables.max_blocks;
  params.num_sequences = tables.device(tables.num_sequences);
  params.num_tokens = as_i32(args.q.shape[0]);
  params.num_heads = as_i32(args.q.shape[1]);
  params.num_kv_heads = as_i32(args.k_cache.shape[1]);
  params.head_dim = as_i32(args.q.shape[2]);
  params.value_dim = as_i32(value_dim(args));
  params.block_size = as_i32(args.k_cache.shape[2]);
  params.scale = args.scale;
  params.soft_cap = args.soft_cap.value_or(0.0F);
  params.window = args.window.value_or(0);
  params.alibi_slopes = args.alibi_slopes.empty() ? nullptr : args.alibi_slopes.data();
  params.sinks = args.sinks.empty() ? nullptr : args.sinks.data();
  params.meets_cached = args.phase != AttentionPhase::kRest;
  params.meets_new = args.phase != AttentionPhase::kCached;
  DType out_dtype = args.out.dtype;
  if (args.phase == AttentionPhase::kCached) {
    const CachedPartial partial = cached_partial(args);
    params.out = partial.outs;
    params.lse = partial.lses;
    params.sinks = nullptr;
    out_dtype = DType::kF32;
  } else if (args.phase == AttentionPhase::kRest) {
    const CachedPartial partial = cached_partial(args);
    params.cached_outs = partial.outs;
    params.cached_lses = partial.lses;
  }
  return lamina::cuda::to_status(
      launch_general_attention(
          params, args.q.dtype, args.k_cache.dtype, out_dtype, lamina::cuda::raw(stream)),
      "ragged_attention");
}

Status append_general(const TensorView& from,
                      const TensorView& cache,
                      const int64_t* slots,
                      StreamView stream) {
  return lamina::cuda::to_status(launch_general_append({.from = from.data,
                                                        .stride = from.row_stride,
                                                        .cache = cache.data,
                                                        .slot_mapping = slots,
                                                        .num_tokens = as_i32(from.shape[0]),
                                                        .num_kv_heads = as_i32(from.shape[1]),
                                                        .dim = as_i32(from.shape[2]),
                                                        .block_size = as_i32(cache.shape[2])},
                                                       from.dtype,
                                                       cache.dtype,
                                                       lamina::cuda::raw(stream)),
                                 "append_kv");
}

AppendedRows appended_rows(const TensorView& from,
                           const TensorView& cache,
                           const TensorView& scales) {
  return {.from = from.data,
          .stride = from.row_stride,
          .cache = cache.data,
          .scales = scales.as<float>(),
          .dim = as_i32(from.shape[2])};
}

Status append_codes(const AppendKvArgs& args, const int64_t* slots, StreamView stream) {
  AppendCodesParams params{};
  params.rows[params.num_kinds++] = appended_rows(args.k, args.k_cache, args.k_scales);
  if (!args.v_cache.empty()) {
    params.rows[params.num_kinds++] = appended_rows(args.v, args.v_cache, args.v_scales);
  }
  params.slot_mapping = slots;
  params.num_tokens = as_i32(args.k.shape[0]);
  params.num_kv_heads = as_i32(args.k.shape[1]);
  params.block_size = as_i32(args.k_cache.shape[2]);
  params.is_swizzled = args.order == KvOrder::kSwizzled;
  return lamina::cuda::to_status(
      launch_append_codes(params, args.k.dtype, args.k_cache.dtype, lamina::cuda::raw(stream)),
      "append_kv");
}

Status append_swizzled(const AppendKvArgs& args, const int64_t* slots, StreamView stream) {
  if (!starts_at_vectors(args.k) || (!args.v.empty() && !starts_at_vectors(args.v))) {
    return invalid_argument("append_kv: rows of k and v must start at multiples of 16 bytes");
  }
  const auto element_bytes = as_i32(static_cast<int64_t>(dtype_bytes(args.k.dtype)));
  return lamina::cuda::to_status(
      launch_append_kv({.k = args.k.data,
                        .v = args.v.data,
                        .k_stride_bytes = args.k.row_stride * element_bytes,
                        .v_stride_bytes = args.v.row_stride * element_bytes,
                        .k_cache = args.k_cache.data,
                        .v_cache = args.v_cache.data,
                        .slot_mapping = slots,
                        .num_tokens = as_i32(args.k.shape[0]),
                        .num_kv_heads = as_i32(args.k.shape[1]),
                        .block_size = as_i32(args.k_cache.shape[2]),
                        .row_bytes = as_i32(args.k.shape[2]) * element_bytes},
                       lamina::cuda::raw(stream)),
      "append_kv");
}

}  // namespace

bool reads_swizzled(const KvShape& shape) {
  const bool fits_tiles = shape.block_size % 16 == 0 &&
                          (kTileKeys % shape.block_size == 0 || shape.block_size % kTileKeys == 0);
  const bool is_coded = is_quantized(shape.dtype);
  const DType fast_q_dtype = is_coded ? DType::kBF16 : shape.dtype;
  if (!is_16_bit(fast_q_dtype) || shape.q_dtype != fast_q_dtype || !fits_tiles) return false;
  const int32_t key_dim = as_i32(shape.key_dim);
  if (shape.value_dim == 0) return !is_coded && has_latent_kernel(key_dim, shape.device.idx);
  return shape.key_dim == shape.value_dim && has_attention_kernel(key_dim);
}

Status append_kv(const AppendKvArgs& args, StreamView stream) {
  if (args.tables == nullptr) return invalid_argument("append_kv: no step tables");
  if (args.k.shape[0] == 0) return {};
  const StepTables::Impl& tables = args.tables->impl();
  const int64_t* slots = tables.device(tables.slot_mapping);
  if (is_quantized(args.k_cache.dtype)) return append_codes(args, slots, stream);
  if (args.order == KvOrder::kSwizzled) return append_swizzled(args, slots, stream);
  LAMINA_RETURN_IF_ERROR(append_general(args.k, args.k_cache, slots, stream));
  if (args.v_cache.empty()) return {};
  return append_general(args.v, args.v_cache, slots, stream);
}

Status ragged_attention(const RaggedAttentionArgs& args, StreamView stream) {
  if (args.batch.tables == nullptr) return invalid_argument("ragged_attention: no step tables");
  const StepTables::Impl& tables = args.batch.tables->impl();
  if ((args.phase != AttentionPhase::kWhole) != tables.limits.in_phases) {
    return invalid_argument(fmt::format("ragged_attention: a call {} phases by tables {} them",
                                        tables.limits.in_phases ? "without" : "in",
                                        tables.limits.in_phases ? "for" : "without"));
  }
  for (const TensorView& result : {args.out, args.state}) {
    if (result.empty() || result.is_contiguous()) continue;
    return invalid_argument("ragged_attention: out or state has gaps");
  }
  if (args.order != KvOrder::kSwizzled) return launch_general(args, tables, stream);
  if (starts_at_vectors(args.q)) return launch_fast(args, tables, stream);
  return invalid_argument("ragged_attention: rows of q must start at multiples of 16 bytes");
}

}  // namespace lamina::kernels::cuda
