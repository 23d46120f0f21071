// StepPipeline: the engine's end of the model replicas: sends each step to all of them and takes in
// what comes back. One step of each micro-batch may be under way. Never waits: the owner polls, and
// sleeps on what add_awaited() names. Confined to one thread.
//
// Replicas that run whole steps at once are given them in groups: what has been started when all
// steps of the group before have ended. Each has its slices of all of them run in one order, so
// that all must know the same group; who of it begins where follows from its place there, since no
// state stays with the replica that ran a micro-batch last.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "plan/rotation.h"
#include "transport/wait_any.h"
#include "worker/step_codec.h"

namespace lamina {

struct StepPipelineConfig {
  uint64_t epoch = 0;
  Rotation rotation;
  int32_t num_layers = 0;  // attentions of a step: its slices, less the seam
  StepCodecLimits limits;
  bool in_groups = false;
};

class StepPipeline {
 public:
  // One endpoint for each replica.
  StepPipeline(const StepPipelineConfig& config, std::vector<std::unique_ptr<Endpoint>> replicas);

  // Starts a step of a micro-batch that has none under way. In groups poll() sends it.
  Status start(int32_t micro_batch, StepPlan plan);
  // A step that has ended, if there is one. An error loses all steps. Where none is left of a
  // group, the owner has started all that it can: the next one goes out.
  Result<std::optional<FinishedStep>> poll();
  void add_awaited(std::vector<AwaitedMessage>& awaited) const;
  [[nodiscard]] bool is_under_way(int32_t micro_batch) const;

 private:
  // What a plan's sequence may bring.
  struct Expected {
    int32_t slot = 0;
    bool samples = false;
    int32_t num_scored = 0;

    [[nodiscard]] bool allows(const SequenceOutput& output) const;
  };
  struct MicroBatch {
    uint64_t step = 0;  // under way; 0: none
    int32_t first_replica = 0;
    std::vector<Expected> outputs;     // of the plan's sequences, in their order
    std::optional<StepResult> result;  // of the step, while acknowledgements are missing
  };

  Result<std::optional<FinishedStep>> poll_steps();
  Status send_started();
  Status send_group();
  [[nodiscard]] bool is_sent(const MicroBatch& batch) const {
    return batch.step != 0 && batch.step <= last_sent_;
  }
  [[nodiscard]] Status reported_failure() const;
  Status take_result(int32_t micro_batch);
  Result<bool> is_acknowledged(int32_t micro_batch);
  static Result<bool> is_there(Endpoint& endpoint, SlotIdx slot, uint64_t seq);

  StepPipelineConfig config_;
  std::vector<std::unique_ptr<Endpoint>> replicas_;
  std::vector<MicroBatch> batches_;
  std::vector<ReplicaStep> started_;  // and not sent yet
  std::vector<std::byte> message_;
  uint64_t last_step_ = 0;
  uint64_t last_sent_ = 0;
};

}  // namespace lamina
