// LocalAttention: attention on the model worker's own device, in its own thread: colocated mode,
// the homogeneous baseline and the oracle for token equality. Confined to one thread.
#pragma once

#include <cstdint>

#include "worker/attention_backend.h"
#include "worker/attention_core.h"

namespace lamina {

class LocalAttention final : public AttentionBackend {
 public:
  // Throws what AttentionCore throws.
  LocalAttention(const AttentionCoreConfig& config, StreamView stream) : core_(config, stream) {}

  Status begin_step(const StepPlan& plan) override;
  Status send_q(int32_t attention_idx, TensorView q) override;
  Status send_kv(int32_t attention_idx, TensorView k, TensorView v) override;
  Status receive(int32_t attention_idx, TensorView out) override;

 private:
  AttentionCore core_;
  wire::AttentionPlan plan_;
  uint64_t step_ = 0;
  // q of the attention under way; in the executor's scratch memory, which the next slice's receive
  // may reuse for `out`: hence the copy.
  Buffer q_copy_;
  TensorView q_;
};

}  // namespace lamina
