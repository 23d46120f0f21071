// LocalBackend: colocated mode: slices and attention on one device in one thread, one replica.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model_program.h"
#include "engine/replica_set.h"
#include "engine/step_backend.h"
#include "worker/local_attention.h"

namespace lamina {

class LocalBackend final : public StepBackend {
 public:
  // `program` and the streams' pools, one for each rank, outlive the backend. `kv_budget_bytes`
  // bounds the KV cache. Throws what ModelWorker throws.
  LocalBackend(const ModelProgram& program,
               uint64_t kv_budget_bytes,
               std::span<const StreamView> streams,
               TraceWriter* trace = nullptr);

  Status start(int32_t micro_batch, StepPlan plan) override;
  Result<std::optional<FinishedStep>> wait(Deadline deadline) override;
  void interrupt() override { replicas_.interrupt(); }
  Result<BlockLanes> open_session(int32_t min_blocks) override;
  [[nodiscard]] bool has_session() const override { return replicas_.is_open(); }
  BackendEvent poll_event() override { return BackendEvent::kNone; }
  [[nodiscard]] Status loss_reason() const override { return {}; }
  void on_event(std::function<void()> /*wake*/) override {}
  void close() override;
  [[nodiscard]] std::vector<EngineStats::Worker> workers() const override { return {}; }
  [[nodiscard]] BackendTimes times() const override;
  PipelineSample take_sample() override { return replicas_.meter().take(); }

 private:
  const ModelProgram& program_;
  uint64_t kv_budget_bytes_;
  std::vector<StreamView> streams_;
  ReplicaSet replicas_;
  uint64_t epoch_ = 0;
  std::vector<std::unique_ptr<LocalAttention>>
      attention_;  // of each rank, while there is a session
};

}  // namespace lamina
