#include "worker/local_attention.h"

#include "worker/packing.h"
#include "worker/plan_translation.h"

namespace lamina {

Status LocalAttention::begin_step(const StepPlan& plan) {
  to_attention_plan(plan, ++step_, plan_);
  return core_.begin_step(plan_);
}

Status LocalAttention::send_q(int32_t /*attention_idx*/, TensorView q) {
  if (q_copy_.size_bytes() < q.size_bytes()) {
    const AttentionCoreConfig& config = core_.config();
    const auto largest = static_cast<size_t>(config.max_tokens) * q.row_bytes();
    q_copy_ = Buffer(MemoryKind::kHost, largest);
  }
  pack_rows(q, {q_copy_.data(), q.size_bytes()});
  q_ = {q_copy_.data(), q.dtype, q.shape};
  return {};
}

Status LocalAttention::send_kv(int32_t attention_idx, TensorView k, TensorView v) {
  return core_.append(attention_idx, k, v);
}

Status LocalAttention::receive(int32_t attention_idx, TensorView out) {
  return core_.attend(attention_idx, q_, out);
}

}  // namespace lamina
