// LocalAttention: attention on the model worker's own device, in its own thread: colocated mode,
// the homogeneous baseline and the oracle for token equality. Confined to one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/attention_backend.h"
#include "worker/attention_core.h"
#include "worker/step_partitioner.h"

namespace lamina {

class LocalAttention final : public AttentionBackend {
 public:
  // Throws what AttentionCore throws.
  LocalAttention(const AttentionCoreConfig& config, StreamView stream);

  Status begin_step(int32_t micro_batch, const StepStart& start, const StepPlan& plan) override;
  Status send_q(int32_t micro_batch, int32_t attention_idx, TensorView q) override;
  Status send_kv(int32_t micro_batch, int32_t attention_idx, TensorView k, TensorView v) override;
  Status receive(int32_t micro_batch, int32_t attention_idx, TensorView out) override;
  [[nodiscard]] bool only_enqueues() const override { return is_on_gpu_; }
  [[nodiscard]] std::optional<uint64_t> launch_shape(int32_t micro_batch) const override {
    return core_.launch_shape(micro_batch);
  }
  Result<bool> has_output(int32_t micro_batch, int32_t attention_idx) override;
  void add_awaited(int32_t micro_batch,
                   int32_t attention_idx,
                   std::vector<AwaitedMessage>& awaited) const override;

 private:
  bool is_on_gpu_;
  AttentionCore core_;
  StepPartitioner partitioner_;
  std::vector<TileStep> parts_;
  std::vector<TensorView> queries_;  // of the attention under way, by micro-batch
};

}  // namespace lamina
