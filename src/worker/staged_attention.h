// StagedAttention: attention whose messages are in host memory, for a model worker whose values are
// in a GPU's: q, k and v go through pinned memory to it, and its output back. What lies between
// them is any AttentionBackend of the host. Confined to one thread.
#pragma once

#include <vector>

#include "device/buffer.h"
#include "device/stream.h"
#include "worker/attention_backend.h"

namespace lamina {

class StagedAttention final : public AttentionBackend {
 public:
  // `host` outlives this. `stream`: of the model worker. Buffers are made for steps of `max_tokens`
  // when they are first needed.
  StagedAttention(AttentionBackend& host, int32_t max_tokens, StreamView stream);

  Status begin_step(int32_t micro_batch, const StepStart& start, const StepPlan& plan) override;
  // q leaves with k and v, which follow in the same slice: the GPU is waited for once.
  Status send_q(int32_t micro_batch, int32_t attention_idx, TensorView q) override;
  // Waits until the GPU has computed what is sent.
  Status send_kv(int32_t micro_batch, int32_t attention_idx, TensorView k, TensorView v) override;
  // Enqueues the copy of the output and does not wait for it.
  Status receive(int32_t micro_batch, int32_t attention_idx, TensorView out) override;
  Result<bool> has_output(int32_t micro_batch, int32_t attention_idx) override;
  void add_awaited(int32_t micro_batch,
                   int32_t attention_idx,
                   std::vector<AwaitedMessage>& awaited) const override;
  void send_unsent() override { host_.send_unsent(); }
  void add_unsent_messages(std::vector<AwaitedMessage>& awaited) const override {
    host_.add_unsent_messages(awaited);
  }

 private:
  [[nodiscard]] TensorView view(Buffer& stage, const TensorView& like) const;
  Result<TensorView> bring(Buffer& stage, const TensorView& from) const;

  AttentionBackend& host_;
  int32_t max_tokens_;
  StreamView stream_;
  TensorView waiting_q_;  // in q_, or on its way there
  // Each takes tensors of one kind, contiguous.
  Buffer q_;
  Buffer k_;
  Buffer v_;
  Buffer out_;
};

}  // namespace lamina
