// ReplicaSet: the model's replicas in this process, each on its own thread, with the engine's end
// of them. Weights are shared on a CPU, and each replica's own on GPUs, as activations are
// everywhere. Used from the engine's thread.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "engine/model_program.h"
#include "engine/step_backend.h"
#include "worker/model_replica.h"
#include "worker/rank_group.h"
#include "worker/step_pipeline.h"

namespace lamina {

// Summed over replicas and sessions.
struct ReplicaTimes {
  Duration slices{};   // computing, sends and exchanges included
  Duration waiting{};  // with a step under way, for attention or carried values
  Duration host{};     // CPU time of their threads, waiting left out
  uint64_t bytes_carried = 0;
};

BackendTimes to_backend_times(const ReplicaTimes& times);

class ReplicaSet {
 public:
  // `program`, the streams' pools and `trace`, which may be null, outlive the set; streams: of each
  // rank of replica 0, then of replica 1, ... Throws what RankGroup throws.
  ReplicaSet(const ModelProgram& program,
             std::span<const StreamView> streams,
             TraceWriter* trace = nullptr);
  ReplicaSet(const ReplicaSet&) = delete;
  ReplicaSet& operator=(const ReplicaSet&) = delete;
  ~ReplicaSet();

  // attention[replica][rank], which outlive the session; all only enqueue, or none does. CHECKs
  // that no session is open.
  void open(uint64_t epoch,
            int32_t num_blocks,
            const std::vector<std::vector<AttentionBackend*>>& attention);
  // Ends the session's threads: each after the slice at hand, or when what it enqueued gives up.
  void close();

  // While a session is open. As StepRunner has them.
  Status start(int32_t micro_batch, StepPlan plan);
  Result<std::optional<FinishedStep>> wait(Deadline deadline);
  void interrupt() { wake_flag_.raise(); }
  // Filled by the replicas; the attention backends' too.
  [[nodiscard]] PipelineMeter& meter() { return meter_; }
  [[nodiscard]] const std::vector<TraceRow>& trace_rows() const { return trace_rows_; }
  [[nodiscard]] bool is_open() const { return pipeline_ != nullptr; }
  [[nodiscard]] ReplicaTimes times() const;

 private:
  struct Replica;

  [[nodiscard]] bool runs_groups() const;
  void connect_engine(uint64_t epoch, const StepCodecLimits& limits);
  void connect_replicas(uint64_t epoch);
  void end_waits();
  void run(Replica& replica);

  const ModelProgram& program_;
  TraceWriter* trace_;
  std::vector<TraceRow> trace_rows_;  // of each replica
  std::vector<std::unique_ptr<Replica>> replicas_;
  std::vector<std::vector<AttentionBackend*>> attention_;  // of the open session
  std::unique_ptr<StepPipeline> pipeline_;
  WakeFlag wake_flag_;
  PipelineMeter meter_;
  std::vector<AwaitedMessage> awaited_;
  std::atomic<bool> should_stop_{false};
};

}  // namespace lamina
