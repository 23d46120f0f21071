// GpuAttentionCore: an attention worker's core on a GPU, whose messages are in host memory: q, k
// and v go to the GPU from where they came, and outputs back, each call in stream order. The copy
// of k and v hides behind nothing but what start() enqueued: a call of attend() ends with its
// output on the host. Confined to one thread.
#pragma once

#include "worker/attention_core.h"

namespace lamina {

class GpuAttentionCore final : public AttentionCore {
 public:
  // Throws what AttentionCore throws.
  GpuAttentionCore(const AttentionCoreConfig& config, StreamView stream);

  // The views of all calls are of host memory; pinned memory is copied faster. start() does not
  // wait: q stays where it is until attend() has returned, which copies it once more, since other
  // micro-batches come between.
  Status start(int32_t micro_batch, int32_t layer_idx, TensorView q) override;
  Status append(int32_t micro_batch, int32_t layer_idx, TensorView k, TensorView v) override;
  Status attend(int32_t micro_batch,
                int32_t layer_idx,
                TensorView q,
                TensorView out,
                TensorView lse = {}) override;

 private:
  // A place for a tensor like `like` in `memory`, which is as large as a step's largest.
  static TensorView place(const Buffer& memory, const TensorView& like);

  StreamView stream_;
  Buffer q_;
  Buffer k_;
  Buffer v_;
  Buffer out_;
  Buffer lse_;
};

}  // namespace lamina
