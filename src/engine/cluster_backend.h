// ClusterBackend: offloaded attention: a model worker in this process and attention workers in
// others. A session gives every worker that is up its share of the KV heads under one epoch; when a
// worker of it dies, hangs or is cut off, the session is lost and another is opened over those that
// remain; when one comes back, a rebalance is offered. Called from the engine's thread; the
// monitor's threads only set flags.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "control/address.h"
#include "control/attention_control.h"
#include "control/security.h"
#include "control/worker_monitor.h"
#include "engine/model_program.h"
#include "engine/replica_set.h"
#include "engine/step_backend.h"
#include "kv/head_partition.h"
#include "plan/partition.h"
#include "worker/device_attention.h"
#include "worker/remote_attention.h"
#include "worker/staged_attention.h"

namespace lamina {

struct ClusterBackendConfig {
  std::vector<control::ControlAddress> workers;  // at least one
  control::ControlSecurity security;
  // None: shared memory where a worker's address is a loopback one, TCP elsewhere. kCudaP2p, kNccl,
  // kRdma: devices send each other q, k, v and outputs by themselves; over kNccl and kRdma for one
  // replica, and heads split over workers. Replicas on GPUs need kCudaP2p.
  std::optional<TransportKind> transport;
  PartitionKind partition = PartitionKind::kAuto;
  // Attention starts on cached keys before k and v are there. None: where that gives the same bits,
  // which is on CPUs.
  std::optional<bool> overlap = std::nullopt;
  control::WorkerMonitorConfig monitor;
  Duration start_timeout =
      std::chrono::seconds(30);  // the first session waits this long for all workers
  Duration call_timeout = std::chrono::seconds(3);     // configuring one worker
  Duration reply_timeout = std::chrono::seconds(120);  // one layer's attention
  TraceWriter* trace = nullptr;                        // or none; outlives the backend
  // Of the host, where the model worker is on a GPU: merges what attention workers send in parts.
  std::optional<StreamView> host_stream = std::nullopt;
};

class ClusterBackend final : public StepBackend, private control::WorkerListener {
 public:
  // `program` and the streams' pools, one for each rank, outlive the backend. Throws what
  // ModelWorker and the control clients throw.
  ClusterBackend(ClusterBackendConfig config,
                 const ModelProgram& program,
                 std::span<const StreamView> streams);
  ClusterBackend(const ClusterBackend&) = delete;
  ClusterBackend& operator=(const ClusterBackend&) = delete;
  ~ClusterBackend() override;

  Status start(int32_t micro_batch, StepPlan plan) override;
  Result<std::optional<FinishedStep>> wait(Deadline deadline) override;
  void interrupt() override { replicas_.interrupt(); }
  Result<BlockLanes> open_session(int32_t min_blocks) override;
  [[nodiscard]] bool has_session() const override { return replicas_.is_open(); }
  BackendEvent poll_event() override;
  [[nodiscard]] Status loss_reason() const override;
  void on_event(std::function<void()> wake) override;
  void close() override;
  [[nodiscard]] std::vector<EngineStats::Worker> workers() const override;
  [[nodiscard]] BackendTimes times() const override { return to_backend_times(replicas_.times()); }
  PipelineSample take_sample() override { return replicas_.meter().take(); }

 private:
  // A worker that takes part in the session being opened or open.
  struct Member {
    size_t worker_idx = 0;
    std::vector<KvTile> tiles;  // its share; heads counted over all ranks
    uint64_t incarnation = 0;
    double share = 0;  // of the KV cache, of 1
  };
  struct SessionPlan {
    PlannedPartition planned;
    std::vector<Member> members;
    size_t num_usable = 0;  // workers it could choose from
  };

  void worker_available(size_t worker_idx, const control::WorkerInfo& info) override;
  void worker_down(size_t worker_idx, const control::WorkerDown& down) override;

  // A worker that answers but could not take part.
  struct Exclusion {
    Duration pause{};
    TimePoint until{};
  };
  struct Candidate {
    std::optional<control::WorkerInfo> info;  // while it answers
    Exclusion exclusion;
  };

  Result<BlockLanes> try_session(int32_t min_blocks);
  void wait_for_all_workers();
  [[nodiscard]] bool has_refused(size_t worker_idx) const;
  [[nodiscard]] bool nobody_will_come() const;
  Result<SessionPlan> plan_session(int32_t min_blocks);
  [[nodiscard]] std::vector<Member> usable_members() const;
  [[nodiscard]] std::vector<PartitionWorker> describe(const std::vector<Member>& members) const;
  void log_session(const SessionPlan& plan) const;
  // The peers of each rank of replica 0, then of replica 1, ...
  using RankPeers = std::vector<std::vector<AttentionPeer>>;
  [[nodiscard]] std::unique_ptr<OffloadedBackend> make_remote(size_t idx,
                                                              std::vector<AttentionPeer> peers);
  [[nodiscard]] std::unique_ptr<OffloadedBackend> make_device_attention(
      size_t idx, std::vector<AttentionPeer> peers, DeviceNeighbours neighbours);
  Status publish(const PlannedPartition& planned, RankPeers peers);
  [[nodiscard]] AttentionBackend* stage(OffloadedBackend& remote, StreamView stream);
  // Called with mutex_ held.
  [[nodiscard]] bool is_usable(const Candidate& candidate) const;
  [[nodiscard]] size_t num_usable() const;
  [[nodiscard]] size_t num_useful(size_t num_workers) const;
  // Opens the session at one worker and adds it to the peers of the ranks that it has heads of.
  Status join(const Member& member, int32_t num_blocks, RankPeers& peers);
  [[nodiscard]] control::SessionConfig session_config(const Member& member,
                                                      int32_t num_blocks) const;
  void add_parts(const KvTile& tile, control::SessionConfig& session) const;
  [[nodiscard]] TransportKind transport_for(size_t worker_idx) const;
  [[nodiscard]] bool overlaps(size_t worker_idx) const;
  [[nodiscard]] EndpointConfig endpoint_config(const control::SessionConfig& session,
                                               const control::SessionPart& part,
                                               size_t worker_idx,
                                               size_t replica) const;
  [[nodiscard]] bool is_on_gpu() const {
    return streams_.front().device().kind == DeviceKind::kCuda;
  }
  [[nodiscard]] bool uses_devices() const {
    return config_.transport && has_device_links(*config_.transport);
  }
  Status lose_session(const Status& status);
  void exclude(size_t worker_idx);
  void close_session();
  [[nodiscard]] Status nobody_is_up() const;

  ClusterBackendConfig config_;
  const ModelProgram& program_;
  std::vector<StreamView> streams_;  // of each rank of each replica
  ReplicaSet replicas_;
  uint64_t engine_id_;
  bool was_open_ = false;
  std::vector<std::unique_ptr<control::AttentionControl>> clients_;
  std::vector<Member> members_;       // of the open session
  std::vector<TraceRow> trace_rows_;  // of each worker, with a trace
  size_t num_considered_ = 0;         // workers that the open session could choose from

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t epoch_ = 0;  // of the latest session; changed by the engine's thread alone
  std::vector<Candidate> candidates_;  // by worker
  // As RankPeers; replaced under mutex_ by the engine's thread alone.
  std::vector<std::unique_ptr<OffloadedBackend>> remote_;
  // Between those and model workers on GPUs. The engine's thread's.
  std::vector<std::unique_ptr<StagedAttention>> staged_;
  std::optional<Status> lost_;
  std::function<void()> wake_;

  std::unique_ptr<control::WorkerMonitor> monitor_;  // last: its threads call this object
};

}  // namespace lamina
