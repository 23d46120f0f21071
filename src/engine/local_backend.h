// LocalBackend: colocated mode: slices and attention on one device in one thread.
#pragma once

#include <memory>
#include <string>

#include "engine/model_program.h"
#include "engine/step_backend.h"
#include "worker/local_attention.h"
#include "worker/model_worker.h"

namespace lamina {

class LocalBackend final : public StepBackend {
 public:
  // `program` and the stream's pool outlive the backend. `kv_budget_bytes` bounds the KV cache.
  // Throws what ModelWorker throws.
  LocalBackend(const ModelProgram& program, uint64_t kv_budget_bytes, StreamView stream);

  Result<std::vector<SequenceOutput>> run(const StepPlan& plan) override;
  Result<int32_t> open_session(int32_t min_blocks) override;
  [[nodiscard]] bool has_session() const override { return attention_ != nullptr; }
  BackendEvent poll_event() override { return BackendEvent::kNone; }
  [[nodiscard]] Status loss_reason() const override { return {}; }
  void on_event(std::function<void()> /*wake*/) override {}
  void close() override { attention_.reset(); }
  [[nodiscard]] std::vector<EngineStats::Worker> workers() const override { return {}; }
  [[nodiscard]] BackendTimes times() const override;

 private:
  const ModelProgram& program_;
  uint64_t kv_budget_bytes_;
  StreamView stream_;
  ModelWorker worker_;
  std::unique_ptr<LocalAttention> attention_;
};

}  // namespace lamina
