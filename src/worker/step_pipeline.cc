#include "worker/step_pipeline.h"

#include <algorithm>

#include "base/check.h"
#include "wire/messages.h"
#include "worker/replica_slots.h"

namespace lamina {

StepPipeline::StepPipeline(const StepPipelineConfig& config,
                           std::vector<std::unique_ptr<Endpoint>> replicas)
    : config_(config),
      replicas_(std::move(replicas)),
      batches_(static_cast<size_t>(config.rotation.num_micro_batches)) {
  LAMINA_CHECK_EQ(static_cast<int32_t>(replicas_.size()), config_.rotation.num_replicas);
  for (size_t i = 0; i < batches_.size(); ++i) {
    batches_[i].first_replica = config_.rotation.initial_replica(static_cast<int32_t>(i));
  }
}

bool StepPipeline::is_under_way(int32_t micro_batch) const {
  return batches_[static_cast<size_t>(micro_batch)].step != 0;
}

Status StepPipeline::start(int32_t micro_batch, StepPlan plan) {
  LAMINA_CHECK(!is_under_way(micro_batch));
  MicroBatch& batch = batches_[static_cast<size_t>(micro_batch)];
  batch.step = ++last_step_;
  batch.outputs.clear();
  for (const SequenceStep& sequence : plan.sequences) {
    batch.outputs.push_back({sequence.slot, sequence.samples, sequence.num_scored});
  }
  started_.push_back({.step = batch.step,
                      .micro_batch = micro_batch,
                      .first_replica = batch.first_replica,
                      .plan = std::move(plan)});
  return config_.in_groups ? Status() : send_started();
}

Status StepPipeline::send_started() {
  auto num_following = static_cast<int32_t>(started_.size());
  for (ReplicaStep& step : started_) {
    step.num_following = --num_following;
    message_.resize(encoded_bytes(step));
    encode_step(step, config_.epoch, message_);
    for (const auto& replica : replicas_) {
      LAMINA_RETURN_IF_ERROR(replica->put(step_slot(step.micro_batch), message_, step.step));
    }
  }
  last_sent_ = last_step_;
  started_.clear();
  return {};
}

// A group begins as a session does: its first micro-batch on replica 0, the next on the next.
Status StepPipeline::send_group() {
  for (ReplicaStep& step : started_) {
    const auto place = std::ranges::count_if(
        started_, [&](const ReplicaStep& other) { return other.micro_batch < step.micro_batch; });
    step.first_replica = config_.rotation.initial_replica(static_cast<int32_t>(place));
  }
  return send_started();
}

bool StepPipeline::Expected::allows(const SequenceOutput& output) const {
  return output.slot == slot && (samples || !output.sampled) &&
         (output.failed || static_cast<int32_t>(output.prompt_scores.size()) == num_scored);
}

// A replica that fails says why and leaves: the reason is looked for before the leaving counts. Who
// failed first made the others fail by leaving.
Result<std::optional<FinishedStep>> StepPipeline::poll() {
  Result<std::optional<FinishedStep>> finished = poll_steps();
  if (finished.ok()) return finished;
  const Status reported = reported_failure();
  return reported.ok() ? finished.status() : reported;
}

Status StepPipeline::reported_failure() const {
  Status first;
  for (const auto& replica : replicas_) {
    for (int32_t i = 0; i < config_.rotation.num_micro_batches; ++i) {
      const SlotIdx slot = result_slot(i);
      if (replica->poll(slot, kFailureSeq) != PollResult::kReady) continue;
      StepResult result;
      LAMINA_RETURN_IF_ERROR(
          decode_result(replica->payload(slot), config_.epoch, config_.limits, result));
      const bool is_better = first.ok() || first.code() == StatusCode::kUnavailable;
      if (is_better && !result.status.ok()) first = result.status;
    }
  }
  return first;
}

Result<std::optional<FinishedStep>> StepPipeline::poll_steps() {
  bool is_under_way = false;
  for (int32_t i = 0; i < config_.rotation.num_micro_batches; ++i) {
    MicroBatch& batch = batches_[static_cast<size_t>(i)];
    if (!is_sent(batch)) continue;
    is_under_way = true;
    LAMINA_RETURN_IF_ERROR(take_result(i));
    if (!batch.result) continue;
    LAMINA_ASSIGN_OR_RETURN(const bool acknowledged, is_acknowledged(i));
    if (!acknowledged) continue;
    FinishedStep finished{.micro_batch = i, .outputs = std::move(batch.result->outputs)};
    batch.result.reset();
    batch.step = 0;
    batch.first_replica = config_.rotation.replica_of(batch.first_replica, config_.num_layers);
    return std::optional(std::move(finished));
  }
  if (!is_under_way) LAMINA_RETURN_IF_ERROR(send_group());
  return std::optional<FinishedStep>();
}

// The result comes from whoever ran the last slice, a failure from any replica.
Status StepPipeline::take_result(int32_t micro_batch) {
  MicroBatch& batch = batches_[static_cast<size_t>(micro_batch)];
  for (const auto& replica : replicas_) {
    const SlotIdx slot = result_slot(micro_batch);
    LAMINA_ASSIGN_OR_RETURN(const bool there, is_there(*replica, slot, batch.step));
    if (!there || batch.result) continue;
    StepResult result;
    LAMINA_RETURN_IF_ERROR(
        decode_result(replica->payload(slot), config_.epoch, config_.limits, result));
    if (!result.status.ok()) return result.status;
    const bool fits = std::equal(batch.outputs.begin(),
                                 batch.outputs.end(),
                                 result.outputs.begin(),
                                 result.outputs.end(),
                                 [](const Expected& expected, const SequenceOutput& output) {
                                   return expected.allows(output);
                                 });
    if (result.step != batch.step || result.micro_batch != micro_batch || !fits) {
      return data_loss("a model replica answered for another step");
    }
    batch.result = std::move(result);
  }
  return {};
}

Result<bool> StepPipeline::is_acknowledged(int32_t micro_batch) {
  const uint64_t step = batches_[static_cast<size_t>(micro_batch)].step;
  for (const auto& replica : replicas_) {
    const SlotIdx slot = ack_slot(micro_batch);
    LAMINA_ASSIGN_OR_RETURN(const bool there, is_there(*replica, slot, step));
    if (!there) return false;
    LAMINA_RETURN_IF_ERROR(wire::decode_header(replica->payload(slot),
                                               {.kind = wire::MessageKind::kAck,
                                                .epoch = config_.epoch,
                                                .step = step,
                                                .layer = 0,
                                                .micro_batch = static_cast<uint32_t>(micro_batch)})
                               .status());
  }
  return true;
}

Result<bool> StepPipeline::is_there(Endpoint& endpoint, SlotIdx slot, uint64_t seq) {
  const PollResult result = endpoint.poll(slot, seq);
  if (result == PollResult::kDown) return unavailable("a model replica is gone");
  return result == PollResult::kReady;
}

void StepPipeline::add_awaited(std::vector<AwaitedMessage>& awaited) const {
  for (int32_t i = 0; i < config_.rotation.num_micro_batches; ++i) {
    const MicroBatch& batch = batches_[static_cast<size_t>(i)];
    if (!is_sent(batch)) continue;
    const SlotIdx slot = batch.result ? ack_slot(i) : result_slot(i);
    const size_t before = awaited.size();
    for (const auto& replica : replicas_) {
      // Of acknowledgements those that are there already are no news; a result is.
      if (!batch.result || replica->received_seq(slot) < batch.step)
        awaited.push_back({replica.get(), slot, batch.step});
    }
    // All came since they were looked for.
    if (awaited.size() == before) awaited.push_back({replicas_.front().get(), slot, batch.step});
  }
  for (const auto& replica : replicas_) add_unsent(*replica, awaited);
}

}  // namespace lamina
