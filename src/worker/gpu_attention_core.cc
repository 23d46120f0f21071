#include "worker/gpu_attention_core.h"

#include "tensor/copy_tensor.h"

namespace lamina {
namespace {

constexpr size_t kFloatBytes = sizeof(float);  // the widest dtype of q, k, v and out

// Memory for `width` elements of each token of a step.
Buffer for_tokens(const AttentionCoreConfig& config, int64_t width) {
  return {MemoryKind::kCuda,
          static_cast<size_t>(config.max_tokens) * static_cast<size_t>(width) * kFloatBytes};
}

}  // namespace

GpuAttentionCore::GpuAttentionCore(const AttentionCoreConfig& config, StreamView stream)
    : AttentionCore(config, stream),
      stream_(stream),
      q_(for_tokens(config, int64_t{config.num_heads} * config.kv.head_dim)),
      k_(for_tokens(config, int64_t{config.kv.num_kv_heads} * config.kv.head_dim)),
      v_(for_tokens(config, int64_t{config.kv.num_kv_heads} * config.kv.value_dim)),
      out_(for_tokens(config, int64_t{config.num_heads} * config.kv.value_dim)),
      lse_(for_tokens(config, config.num_heads)) {}

TensorView GpuAttentionCore::place(const Buffer& memory, const TensorView& like) {
  return like.empty() ? like : TensorView(memory.data(), like.dtype, like.shape);
}

Status GpuAttentionCore::start(int32_t micro_batch, int32_t layer_idx, TensorView q) {
  const TensorView placed_q = place(q_, q);
  LAMINA_RETURN_IF_ERROR(copy_tensor(placed_q, q, stream_));
  return AttentionCore::start(micro_batch, layer_idx, placed_q);
}

// Waits: the message's memory is the peer's again once this returns.
Status GpuAttentionCore::append(int32_t micro_batch,
                                int32_t layer_idx,
                                TensorView k,
                                TensorView v) {
  const TensorView values = config().kv.latent ? TensorView() : v;
  const TensorView placed_k = place(k_, k);
  const TensorView placed_v = place(v_, values);
  LAMINA_RETURN_IF_ERROR(copy_tensor(placed_k, k, stream_));
  if (!values.empty()) LAMINA_RETURN_IF_ERROR(copy_tensor(placed_v, values, stream_));
  LAMINA_RETURN_IF_ERROR(AttentionCore::append(micro_batch, layer_idx, placed_k, placed_v));
  return synchronize(stream_);
}

Status GpuAttentionCore::attend(
    int32_t micro_batch, int32_t layer_idx, TensorView q, TensorView out, TensorView lse) {
  const TensorView wanted_lse = is_partial(micro_batch) ? lse : TensorView();
  const TensorView placed_q = place(q_, q);
  const TensorView placed_out = place(out_, out);
  const TensorView placed_lse = place(lse_, wanted_lse);
  LAMINA_RETURN_IF_ERROR(copy_tensor(placed_q, q, stream_));
  LAMINA_RETURN_IF_ERROR(
      AttentionCore::attend(micro_batch, layer_idx, placed_q, placed_out, placed_lse));
  LAMINA_RETURN_IF_ERROR(copy_tensor(out, placed_out, stream_));
  if (!wanted_lse.empty()) {
    LAMINA_RETURN_IF_ERROR(copy_tensor(wanted_lse, placed_lse, stream_));
  }
  return synchronize(stream_);
}

}  // namespace lamina
