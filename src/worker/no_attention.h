// NoAttention: attention that takes no time, for measuring slices alone.
#pragma once

#include <optional>
#include <vector>

#include "worker/attention_backend.h"

namespace lamina {

class NoAttention final : public AttentionBackend {
 public:
  // With a shape the calls count as launches, which are captured together with slices.
  explicit NoAttention(std::optional<uint64_t> launch_shape = std::nullopt)
      : launch_shape_(launch_shape) {}

  Status begin_step(int32_t, const StepStart&, const StepPlan&) override { return {}; }
  Status send_q(int32_t, int32_t, TensorView) override { return {}; }
  Status send_kv(int32_t, int32_t, TensorView, TensorView) override { return {}; }
  Status receive(int32_t, int32_t, TensorView) override { return {}; }
  Result<bool> has_output(int32_t, int32_t) override { return true; }
  void add_awaited(int32_t, int32_t, std::vector<AwaitedMessage>&) const override {}
  [[nodiscard]] std::optional<uint64_t> launch_shape(int32_t) const override {
    return launch_shape_;
  }

 private:
  std::optional<uint64_t> launch_shape_;
};

}  // namespace lamina
