// PlanReceiver: the plans of a session as an attention worker takes them: a micro-batch's from
// whichever replica begins its step, all of them in the order of their numbers. Confined to one
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "transport/wait_any.h"
#include "wire/messages.h"

namespace lamina {

struct PlanReceiverConfig {
  uint64_t epoch = 0;
  uint32_t num_layers = 0;
  wire::PlanLimits limits;
};

class PlanReceiver {
 public:
  // `replicas` outlive this.
  PlanReceiver(const PlanReceiverConfig& config, std::vector<Endpoint*> replicas);

  // A plan that is there, and the replica that sent it.
  struct Arrival {
    std::span<const std::byte> message;
    int32_t replica = 0;
  };
  // The next plan of a micro-batch, whose turn has come. kUnavailable if a replica is gone.
  Result<std::optional<Arrival>> find(uint32_t micro_batch);
  // Begins the step of a plan that was found. kDataLoss for another step, micro-batch or nothing to
  // do, and what decode_plan() gives.
  Status take(uint32_t micro_batch, std::span<const std::byte> message, wire::AttentionPlan& plan);
  // Adds what find() waits for.
  void add_awaited(uint32_t micro_batch, std::vector<AwaitedMessage>& awaited) const;

  // Of the step that was begun last, of any micro-batch; and of one of them. 0: none.
  [[nodiscard]] uint64_t last_step() const { return last_step_; }
  [[nodiscard]] uint64_t step_of(uint32_t micro_batch) const { return steps_[micro_batch]; }

 private:
  [[nodiscard]] uint64_t next_turn() const;
  [[nodiscard]] AwaitedMessage plan_from(size_t replica, uint32_t micro_batch) const;

  PlanReceiverConfig config_;
  std::vector<Endpoint*> replicas_;
  std::vector<uint64_t> steps_;  // by micro-batch
  uint64_t last_step_ = 0;
};

// kUnavailable if the sender is gone.
Result<bool> is_there(const AwaitedMessage& message);

}  // namespace lamina
