// Session: one epoch of a simulated cluster, wired as engine/ does it: replicas of the model and
// attention workers on hosts of their own, every one a process of the event loop, and the engine's
// end of the replicas. When it is closed its processes live on until they notice: what they still
// send must not matter to anybody. Confined to one thread.
#pragma once

#include <memory>
#include <vector>

#include "device/thread_pool.h"
#include "simulate/event_loop.h"
#include "simulate/pipeline_record.h"
#include "simulate/replay_endpoint.h"
#include "simulate/scenario.h"
#include "worker/attention_worker.h"
#include "worker/model_replica.h"
#include "worker/remote_attention.h"
#include "worker/step_pipeline.h"

namespace lamina::simulate {

// All outlive the processes of every session.
struct World {
  const Scenario* scenario = nullptr;
  const FakeModel* model = nullptr;
  SimNetwork* network = nullptr;
  EventLoop* loop = nullptr;
  ThreadPool* pool = nullptr;
};

class Session {
 public:
  // `record` and `replay` outlive the session's processes. Throws Error where the partition has no
  // plan.
  Session(const World& world,
          const SessionSpec& spec,
          uint64_t epoch,
          SimHost& engine,
          PipelineRecord& record,
          Replay& replay);

  [[nodiscard]] StepPipeline& pipeline() { return *pipeline_; }
  [[nodiscard]] const PlannedPartition& planned() const { return planned_; }

 private:
  // A process in the making.
  struct Replica {
    SimHost* host = nullptr;
    std::unique_ptr<Endpoint> to_engine;
    std::vector<std::unique_ptr<Endpoint>> to_replicas;
    std::vector<AttentionPeer> peers;
  };
  struct Tile {
    KvTile tile;
    std::vector<std::unique_ptr<Endpoint>> to_replicas;
  };

  [[nodiscard]] const Scenario& scenario() const { return *world_.scenario; }
  [[nodiscard]] StepCodecLimits limits() const;
  [[nodiscard]] AttentionCoreConfig core_config(const KvTile& tile) const;
  [[nodiscard]] Stopwatch stopwatch(uint64_t owner) const;
  void connect_engine(SimHost& engine);
  void connect_replicas();
  void connect_attention();
  void start_replica(size_t idx);
  void start_worker(int32_t idx);
  void plan_faults(const std::vector<Fault>& faults);
  std::unique_ptr<Endpoint> with_replay(std::unique_ptr<Endpoint> endpoint,
                                        const EndpointConfig& config,
                                        const SimHost& host);
  std::pair<std::unique_ptr<Endpoint>, std::unique_ptr<Endpoint>> connect(SimHost& a,
                                                                          uint64_t id_a,
                                                                          std::vector<size_t> at_a,
                                                                          SimHost& b,
                                                                          uint64_t id_b,
                                                                          std::vector<size_t> at_b);

  World world_;
  uint64_t epoch_;
  PipelineRecord& record_;
  Replay& replay_;
  PlannedPartition planned_;
  std::vector<SimHost*> worker_hosts_;
  std::vector<Replica> replicas_;
  std::vector<Tile> tiles_;
  std::vector<const SimEndpoint*> links_;  // while the session is made
  std::vector<std::unique_ptr<Endpoint>> engine_ends_;
  std::unique_ptr<StepPipeline> pipeline_;
};

}  // namespace lamina::simulate
