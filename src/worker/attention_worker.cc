#include "worker/attention_worker.h"

#include <fmt/format.h>

#include <algorithm>

#include "wire/slots.h"

namespace lamina {

using wire::MessageKind;

namespace {

uint32_t unsigned_of(int32_t value) {
  return static_cast<uint32_t>(value);
}

}  // namespace

AttentionWorker::AttentionWorker(const AttentionWorkerConfig& config,
                                 Endpoint& endpoint,
                                 StreamView stream)
    : config_(config), endpoint_(endpoint), core_(config.core, stream) {
  note_progress();
}

Result<AttentionWorker::Pending> AttentionWorker::advance() {
  while (true) {
    const Pending pending = awaited();
    switch (endpoint_.poll(pending.slot, pending.seq)) {
      case PollResult::kPending:
        return pending;
      case PollResult::kDown:
        return unavailable("the model worker is gone");
      case PollResult::kReady:
        break;
    }
    note_progress();  // before is_in_step: a long idle time must not look like a hanging step
    stats_.is_in_step = true;
    const Status handled = handle();
    note_progress();
    stats_.is_in_step = state_ != State::kPlan;
    if (!handled.ok()) {
      refuse(handled);
      return handled;
    }
  }
}

void AttentionWorker::note_progress() {
  stats_.last_progress_ns = steady_clock().now().time_since_epoch().count();
}

Status AttentionWorker::wait(WaitPolicy policy, Duration most) {
  const Pending pending = awaited();
  const TimePoint begin = steady_clock().now();
  Status waited = endpoint_.wait(pending.slot, pending.seq, Deadline::after(most), policy);
  stats_.wait_ns += (steady_clock().now() - begin).count();
  return waited.code() == StatusCode::kDeadlineExceeded ? Status() : waited;
}

uint64_t AttentionWorker::progress() const {
  constexpr uint64_t kStates = 3;
  const uint64_t num_layers = unsigned_of(config_.core.kv.num_layers);
  return (step_ * num_layers + layer_) * kStates + static_cast<uint64_t>(state_);
}

Status AttentionWorker::serve(std::span<AttentionWorker* const> workers,
                              const std::atomic<bool>& should_stop,
                              WaitPolicy policy,
                              Duration idle_check) {
  while (!should_stop) {
    for (AttentionWorker* worker : workers) {
      const Result<Pending> pending = worker->advance();
      if (!pending.ok()) return pending.status();
    }
    AttentionWorker* last = *std::ranges::min_element(
        workers, {}, [](const AttentionWorker* worker) { return worker->progress(); });
    LAMINA_RETURN_IF_ERROR(last->wait(policy, idle_check));
  }
  return {};
}

AttentionWorker::Pending AttentionWorker::awaited() const {
  const uint32_t num_layers = unsigned_of(config_.core.kv.num_layers);
  const uint64_t seq = wire::sequence_number(step_, layer_, num_layers);
  switch (state_) {
    case State::kPlan:
      return {wire::slot_of(MessageKind::kPlan, 0), wire::sequence_number(step_, 0, num_layers)};
    case State::kQ:
      return {wire::slot_of(MessageKind::kQ, layer_), seq};
    case State::kKv:
      break;
  }
  return {wire::slot_of(MessageKind::kKv, layer_), seq};
}

Status AttentionWorker::handle() {
  const std::span<const std::byte> message = endpoint_.payload(awaited().slot);
  stats_.bytes_received += message.size();
  switch (state_) {
    case State::kPlan:
      return handle_plan(message);
    case State::kQ:
      return handle_q(message);
    case State::kKv:
      break;
  }
  return handle_kv(message);
}

Status AttentionWorker::handle_plan(std::span<const std::byte> message) {
  const AttentionCoreConfig& core = config_.core;
  const wire::PlanLimits limits{.max_sequences = unsigned_of(core.max_sequences),
                                .max_tokens = unsigned_of(core.max_tokens),
                                .max_blocks = unsigned_of(core.num_blocks)};
  LAMINA_RETURN_IF_ERROR(wire::decode_plan(message, config_.epoch, limits, plan_));
  if (plan_.step != step_)
    return data_loss(fmt::format("plan of step {}, expected {}", plan_.step, step_));
  LAMINA_RETURN_IF_ERROR(core_.begin_step(plan_));
  stats_.num_blocks_used = core_.num_blocks_used();
  state_ = State::kQ;
  return {};
}

// q is only validated here: it stays in its slot until k and v are there. (Attention over the
// cached tokens could begin now; that is the overlap of PAPER 6.3.)
Status AttentionWorker::handle_q(std::span<const std::byte> message) {
  const TensorView q = q_tensor({});
  LAMINA_ASSIGN_OR_RETURN(q_payload_, tensor_payload(message, MessageKind::kQ, q.size_bytes()));
  state_ = State::kKv;
  return {};
}

Status AttentionWorker::handle_kv(std::span<const std::byte> message) {
  const KvLayout& kv = config_.core.kv;
  const size_t key_bytes = tensor({}, kv.num_kv_heads, kv.head_dim).size_bytes();
  const size_t value_bytes = kv.latent ? 0 : tensor({}, kv.num_kv_heads, kv.value_dim).size_bytes();
  LAMINA_ASSIGN_OR_RETURN(const auto payload,
                          tensor_payload(message, MessageKind::kKv, key_bytes + value_bytes));
  const auto layer = static_cast<int32_t>(layer_);
  const TimePoint begin = steady_clock().now();
  LAMINA_RETURN_IF_ERROR(
      core_.append(layer,
                   tensor(payload.first(key_bytes), kv.num_kv_heads, kv.head_dim),
                   tensor(payload.subspan(key_bytes), kv.num_kv_heads, kv.value_dim)));
  LAMINA_RETURN_IF_ERROR(reply(q_tensor(q_payload_)));
  stats_.attention_ns += (steady_clock().now() - begin).count();
  state_ = State::kQ;
  if (++layer_ == unsigned_of(config_.core.kv.num_layers)) {
    stats_.num_tokens += unsigned_of(core_.num_step_tokens());
    ++stats_.num_steps;
    layer_ = 0;
    ++step_;
    state_ = State::kPlan;
  }
  return {};
}

Result<std::span<const std::byte>> AttentionWorker::tensor_payload(
    std::span<const std::byte> message, MessageKind kind, size_t expected_bytes) const {
  LAMINA_ASSIGN_OR_RETURN(const wire::MessageHeader head,
                          wire::decode_header(message,
                                              {.kind = kind,
                                               .epoch = config_.epoch,
                                               .step = step_,
                                               .layer = layer_,
                                               .micro_batch = 0}));
  if (head.num_rows != unsigned_of(core_.num_step_tokens()) ||
      head.payload_bytes != expected_bytes || head.dtype != static_cast<uint16_t>(config_.dtype)) {
    return data_loss(
        fmt::format("layer {}: {} rows in {} bytes of dtype {}, expected {} in {} of dtype {}",
                    layer_,
                    head.num_rows,
                    head.payload_bytes,
                    head.dtype,
                    core_.num_step_tokens(),
                    expected_bytes,
                    static_cast<uint16_t>(config_.dtype)));
  }
  return message.subspan(sizeof(head));
}

// Attention straight into the peer's slot.
Status AttentionWorker::reply(TensorView q) {
  wire::MessageHeader head = reply_header();
  head.num_rows = static_cast<uint32_t>(q.shape[0]);
  TensorView out = tensor({}, config_.core.num_heads, config_.core.kv.value_dim);
  head.payload_bytes = out.size_bytes();
  const size_t message_bytes = sizeof(head) + out.size_bytes();
  const SlotIdx slot = wire::slot_of(MessageKind::kOut, layer_);
  const std::span<std::byte> message = endpoint_.stage(slot, message_bytes);
  wire::encode_header(head, message);
  out.data = message.data() + sizeof(head);
  LAMINA_RETURN_IF_ERROR(core_.attend(static_cast<int32_t>(layer_), q, out));
  stats_.bytes_sent += message_bytes;
  return endpoint_.commit(
      slot,
      message_bytes,
      wire::sequence_number(step_, layer_, unsigned_of(config_.core.kv.num_layers)));
}

// Tells the model worker, which may be waiting for layer 0 of a step whose plan was bad, that
// nothing will come.
void AttentionWorker::refuse(const Status& reason) {
  wire::MessageHeader head = reply_header();
  head.status = static_cast<uint16_t>(reason.code());
  const SlotIdx slot = wire::slot_of(MessageKind::kOut, layer_);
  const std::span<std::byte> message = endpoint_.stage(slot, sizeof(head));
  wire::encode_header(head, message);
  // The endpoint may be down already: then there is nobody to tell.
  static_cast<void>(endpoint_.commit(
      slot,
      sizeof(head),
      wire::sequence_number(step_, layer_, unsigned_of(config_.core.kv.num_layers))));
}

wire::MessageHeader AttentionWorker::reply_header() const {
  wire::MessageHeader head;
  head.kind = static_cast<uint16_t>(MessageKind::kOut);
  head.epoch = config_.epoch;
  head.step = step_;
  head.layer = layer_;
  head.dtype = static_cast<uint16_t>(config_.dtype);
  return head;
}

TensorView AttentionWorker::tensor(std::span<const std::byte> bytes,
                                   int32_t num_heads,
                                   int32_t width) const {
  // Operators only read it; TensorView has no const form.
  return {const_cast<std::byte*>(bytes.data()),
          config_.dtype,
          {core_.num_step_tokens(), num_heads, width}};
}

}  // namespace lamina
