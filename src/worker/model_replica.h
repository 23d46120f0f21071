// ModelReplica: one replica of the model. The engine tells every replica of every step; those whose
// turn it is (plan/rotation.h) run its slices, hand the carried values on to the next, and the one
// that runs the last slice samples and tells the engine. While a micro-batch's attention is under
// way the slices of others run. A state machine fed by readiness: step() does one thing that needs
// no waiting, so that a simulator can run it on a virtual clock; only serve() waits. Confined to
// one thread, but for stats.
//
// Where attention's calls only enqueue, the replica runs all its slices of a group of steps at once
// (StepPipeline): slice 0 of all of them in the order of their micro-batches, then slice 1 and so
// on, as all replicas do. Each waits for earlier ones of that order alone: none waits for ever.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/trace.h"
#include "plan/rotation.h"
#include "transport/wait_any.h"
#include "worker/pipeline_meter.h"
#include "worker/sequence_states.h"
#include "worker/slice_runner.h"
#include "worker/step_codec.h"

namespace lamina {

struct ModelReplicaConfig {
  uint64_t epoch = 0;
  Rotation rotation;
  int32_t replica_idx = 0;
  StepCodecLimits limits;
  // How long a micro-batch's slice may wait for another replica or for attention, slices of other
  // micro-batches included, before the session is given up. Death and hanging of a worker are
  // noticed sooner, by its heartbeat; this bounds what heartbeats cannot see.
  Duration wait_limit = std::chrono::seconds(120);
};

// All outlive the replica.
struct ReplicaLinks {
  Endpoint* engine = nullptr;
  std::vector<Endpoint*> replicas;           // by index; null where nothing goes this way
  std::vector<AttentionBackend*> attention;  // of each tensor-parallel rank
  PipelineMeter* meter = nullptr;            // or none
  TraceWriter* trace = nullptr;              // or none
  std::vector<TraceRow> trace_rows = {};     // of each replica, with a trace
};

// Written by the replica's thread, read by others.
struct ModelReplicaStats {
  std::atomic<uint64_t> num_slices{0};
  std::atomic<int64_t> slice_ns{0};        // computing, sends and exchanges included
  std::atomic<int64_t> wait_ns{0};         // with nothing to do, while a step was under way
  std::atomic<int64_t> host_ns{0};         // CPU time of its thread, waiting of both kinds left out
  std::atomic<uint64_t> bytes_carried{0};  // sent to other replicas
};

class ModelReplica {
 public:
  // `runner` outlives the replica; `stream` runs the sampling.
  ModelReplica(const ModelReplicaConfig& config,
               const ReplicaLinks& links,
               SliceRunner& runner,
               StreamView stream,
               const Clock& clock = steady_clock());

  // Does one thing, if there is one: false if not. An error ends the session; the engine has been
  // told where that was possible.
  Result<bool> step();
  // Adds what step() waits for.
  void add_awaited(std::vector<AwaitedMessage>& awaited) const;
  // Until `should_stop` or an error. `idle_check` bounds each wait, so that stopping is seen.
  Status serve(const std::atomic<bool>& should_stop, WaitPolicy policy, Duration idle_check);

  [[nodiscard]] const ModelReplicaStats& stats() const { return stats_; }

 private:
  // A micro-batch's step, or none: this replica has no slice of it left to run.
  struct MicroBatch {
    ReplicaStep step;
    GatheredInputs inputs;
    std::optional<int32_t> next_slice;  // that this replica runs
    uint64_t last_turn = 0;             // when it last ran one
    TimePoint waits_since{};            // since when that one might have been run
  };

  void send_unsent();
  void add_unsent_messages(std::vector<AwaitedMessage>& awaited) const;
  Result<bool> begin_next_step();
  Status begin_step(int32_t micro_batch);
  Status acknowledge(int32_t micro_batch);
  Result<bool> run_next_slice();
  void sort_by_turn();
  [[nodiscard]] Status check_patience(const MicroBatch& batch) const;
  Result<bool> is_runnable(int32_t micro_batch);
  Status run_slice(int32_t micro_batch);
  [[nodiscard]] bool only_enqueues() const { return links_.attention.front()->only_enqueues(); }
  Result<bool> run_group();
  [[nodiscard]] std::vector<SliceRun> enqueueable_runs() const;
  Status wait_for_slices();
  [[nodiscard]] Status check_received();
  Status run_slices(std::span<const SliceRun> runs);
  [[nodiscard]] bool comes_from_elsewhere(const MicroBatch& batch, int32_t slice_idx) const;
  [[nodiscard]] AwaitedMessage carried_into(int32_t micro_batch) const;
  Status take_carried(int32_t micro_batch);
  void trace_carried(int32_t sender, int64_t sent_ns);
  Status hand_on(int32_t micro_batch, int32_t slice_idx);
  Status finish(int32_t micro_batch);
  void note_slices(const SliceRun& run, TimePoint begin);
  void report(int32_t micro_batch, const Status& failure);
  Status send_result(const StepResult& result, uint64_t seq);
  // The first slice from `from` on that this replica runs.
  [[nodiscard]] std::optional<int32_t> own_slice(const MicroBatch& batch, int32_t from) const;
  [[nodiscard]] int32_t replica_of(const MicroBatch& batch, int32_t slice_idx) const;
  [[nodiscard]] uint64_t carried_seq(const MicroBatch& batch, int32_t slice_idx) const;
  [[nodiscard]] MicroBatch& batch(int32_t idx) { return batches_[static_cast<size_t>(idx)]; }
  [[nodiscard]] const MicroBatch& batch(int32_t idx) const {
    return batches_[static_cast<size_t>(idx)];
  }

  ModelReplicaConfig config_;
  ReplicaLinks links_;
  SliceRunner& runner_;
  StreamView stream_;
  const Clock* clock_;
  SequenceStates sequences_;
  ModelReplicaStats stats_;
  std::vector<MicroBatch> batches_;
  std::vector<int32_t> order_;  // of their turns
  uint64_t last_step_ = 0;      // that was begun, of any micro-batch
  int32_t num_following_ = 0;   // steps that come after it in its group
  uint64_t num_turns_ = 0;
};

}  // namespace lamina
