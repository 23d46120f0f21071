#include "worker/staged_attention.h"

#include "tensor/copy_tensor.h"

namespace lamina {
StagedAttention::StagedAttention(AttentionBackend& host, int32_t max_tokens, StreamView stream)
    : host_(host), max_tokens_(max_tokens), stream_(use_device_of(stream)) {}

// A place of the same shape in the stage's memory.
TensorView StagedAttention::view(Buffer& stage, const TensorView& like) const {
  const size_t most = static_cast<size_t>(max_tokens_) * like.row_bytes();
  if (stage.size_bytes() < most) {
    stage = Buffer(staging_of(stream_.device().kind), most);
  }
  return {stage.data(), like.dtype, like.shape};
}

Result<TensorView> StagedAttention::bring(Buffer& stage, const TensorView& from) const {
  if (from.empty()) return from;
  const TensorView to = view(stage, from);
  LAMINA_RETURN_IF_ERROR(copy_tensor(to, from, stream_));
  return to;
}

Status StagedAttention::begin_step(int32_t micro_batch,
                                   const StepStart& start,
                                   const StepPlan& plan) {
  return host_.begin_step(micro_batch, start, plan);
}

Status StagedAttention::send_q(int32_t /*micro_batch*/, int32_t /*attention_idx*/, TensorView q) {
  LAMINA_ASSIGN_OR_RETURN(waiting_q_, bring(q_, q));
  return {};
}

// Messages are packed from here before the call returns: one buffer serves all micro-batches.
Status StagedAttention::send_kv(int32_t micro_batch,
                                int32_t attention_idx,
                                TensorView k,
                                TensorView v) {
  LAMINA_ASSIGN_OR_RETURN(const TensorView staged_k, bring(k_, k));
  LAMINA_ASSIGN_OR_RETURN(const TensorView staged_v, bring(v_, v));
  LAMINA_RETURN_IF_ERROR(synchronize(stream_));
  LAMINA_RETURN_IF_ERROR(host_.send_q(micro_batch, attention_idx, waiting_q_));
  return host_.send_kv(micro_batch, attention_idx, staged_k, staged_v);
}

// The copy before has been waited for: its slice sent q, or its step's result was taken, since.
Status StagedAttention::receive(int32_t micro_batch, int32_t attention_idx, TensorView out) {
  const TensorView staged = view(out_, out);
  LAMINA_RETURN_IF_ERROR(host_.receive(micro_batch, attention_idx, staged));
  return copy_tensor(out, staged, stream_);
}

Result<bool> StagedAttention::has_output(int32_t micro_batch, int32_t attention_idx) {
  return host_.has_output(micro_batch, attention_idx);
}

void StagedAttention::add_awaited(int32_t micro_batch,
                                  int32_t attention_idx,
                                  std::vector<AwaitedMessage>& awaited) const {
  host_.add_awaited(micro_batch, attention_idx, awaited);
}

}  // namespace lamina
