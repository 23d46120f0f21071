#include "worker/plan_receiver.h"

#include <fmt/format.h>

#include "wire/slots.h"

namespace lamina {

PlanReceiver::PlanReceiver(const PlanReceiverConfig& config, std::vector<Endpoint*> replicas)
    : config_(config), replicas_(std::move(replicas)), steps_(config.limits.max_micro_batches) {}

Result<bool> is_there(const AwaitedMessage& message) {
  const PollResult result = message.endpoint->poll(message.slot, message.seq);
  if (result == PollResult::kDown) return unavailable("a model replica is gone");
  return result == PollResult::kReady;
}

// The sequence number of the plan of the step to be begun next, whichever micro-batch it is of.
uint64_t PlanReceiver::next_turn() const {
  return wire::sequence_number(last_step_ + 1, 0, config_.num_layers);
}

// The micro-batch's next plan, whichever step it is of.
AwaitedMessage PlanReceiver::plan_from(size_t replica, uint32_t micro_batch) const {
  return {replicas_[replica],
          wire::slot_of(wire::MessageKind::kPlan, micro_batch, 0),
          wire::sequence_number(steps_[micro_batch] + 1, 0, config_.num_layers)};
}

// Plans of different micro-batches may overtake each other; steps are begun in their order.
Result<std::optional<PlanReceiver::Arrival>> PlanReceiver::find(uint32_t micro_batch) {
  const uint64_t turn = next_turn();
  for (size_t replica = 0; replica < replicas_.size(); ++replica) {
    const AwaitedMessage plan = plan_from(replica, micro_batch);
    LAMINA_ASSIGN_OR_RETURN(const bool there, is_there(plan));
    if (!there || plan.endpoint->received_seq(plan.slot) > turn) continue;
    return std::optional<Arrival>(
        {plan.endpoint->payload(plan.slot), static_cast<int32_t>(replica)});
  }
  return std::optional<Arrival>();
}

Status PlanReceiver::take(uint32_t micro_batch,
                          std::span<const std::byte> message,
                          wire::AttentionPlan& plan) {
  steps_[micro_batch] = last_step_ + 1;
  LAMINA_RETURN_IF_ERROR(wire::decode_plan(message, config_.epoch, config_.limits, plan));
  if (plan.step != last_step_ + 1)
    return data_loss(fmt::format("plan of step {}, expected {}", plan.step, last_step_ + 1));
  if (plan.micro_batch != micro_batch || plan.sequences.empty()) {
    return data_loss(fmt::format("plan of micro-batch {} with {} sequences in the slot of {}",
                                 plan.micro_batch,
                                 plan.sequences.size(),
                                 micro_batch));
  }
  ++last_step_;
  return {};
}

void PlanReceiver::add_awaited(uint32_t micro_batch, std::vector<AwaitedMessage>& awaited) const {
  const uint64_t turn = next_turn();
  for (size_t replica = 0; replica < replicas_.size(); ++replica) {
    const AwaitedMessage plan = plan_from(replica, micro_batch);
    // One whose turn has not come is no news: what is awaited is the plan before it.
    const uint64_t received = plan.endpoint->received_seq(plan.slot);
    if (received < plan.seq || received <= turn) awaited.push_back(plan);
  }
}

}  // namespace lamina
