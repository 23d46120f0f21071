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

PlanReceiverConfig AttentionWorkerConfig::plans() const {
  const int32_t session_blocks = std::max(total_blocks, core.num_blocks);
  return {.epoch = epoch,
          .num_layers = unsigned_of(core.kv.num_layers),
          .limits = {.max_micro_batches = unsigned_of(core.num_micro_batches),
                     .max_sequences = unsigned_of(core.max_sequences),
                     .max_tokens = unsigned_of(core.max_tokens),
                     .max_blocks = unsigned_of(core.num_blocks),
                     .max_new_blocks = unsigned_of(session_blocks),
                     .has_holes = session_blocks > core.num_blocks}};
}

AttentionWorker::AttentionWorker(const AttentionWorkerConfig& config,
                                 std::vector<Endpoint*> replicas,
                                 StreamView stream,
                                 const Clock& clock)
    : AttentionWorker(config,
                      std::move(replicas),
                      std::make_unique<AttentionCore>(config.core, stream),
                      clock) {}

AttentionWorker::AttentionWorker(const AttentionWorkerConfig& config,
                                 std::vector<Endpoint*> replicas,
                                 std::unique_ptr<AttentionCore> core,
                                 const Clock& clock)
    : config_(config),
      rotation_{config.core.num_micro_batches, config.num_replicas},
      replicas_(std::move(replicas)),
      clock_(&clock),
      core_(std::move(core)),
      plans_(config.plans(), replicas_),
      micro_batches_(static_cast<size_t>(config.core.num_micro_batches)) {
  LAMINA_CHECK_EQ(static_cast<int32_t>(replicas_.size()), config.num_replicas);
  note_progress();
}

void AttentionWorker::note_progress() {
  stats_.last_progress_ns = clock_->now().time_since_epoch().count();
}

void AttentionWorker::add_awaited(std::vector<AwaitedMessage>& awaited) const {
  for (uint32_t i = 0; i < micro_batches_.size(); ++i) {
    if (micro_batches_[i].state == State::kPlan) {
      plans_.add_awaited(i, awaited);
    } else {
      awaited.push_back(tensors_of(i));
    }
  }
  // The next message may come from a replica other than the one that waits for an output.
  for (Endpoint* replica : replicas_) add_unsent(*replica, awaited);
}

AwaitedMessage AttentionWorker::tensors_of(uint32_t micro_batch) const {
  const MicroBatch& batch = micro_batches_[micro_batch];
  const MessageKind kind = batch.state == State::kQ ? MessageKind::kQ : MessageKind::kKv;
  const uint32_t num_layers = unsigned_of(config_.core.kv.num_layers);
  return {&replica_of(micro_batch, batch.layer),
          wire::slot_of(kind, micro_batch, batch.layer),
          wire::sequence_number(plans_.step_of(micro_batch), batch.layer, num_layers)};
}

// Who runs a slice of the micro-batch's step: slice l sends to layer l, slice l + 1 has its output.
Endpoint& AttentionWorker::replica_of(uint32_t micro_batch, uint32_t slice_idx) const {
  const int32_t replica = rotation_.replica_of(micro_batches_[micro_batch].first_replica,
                                               static_cast<int32_t>(slice_idx));
  return *replicas_[static_cast<size_t>(replica)];
}

// ---- one message ----

// k and v first: an output is what the other side waits for. Then plans, before the next layer of
// anybody: a worker that always has attention to do would else never get to other micro-batches.
Result<bool> AttentionWorker::step() {
  for (Endpoint* replica : replicas_) replica->send_unsent();
  for (const State state : {State::kKv, State::kPlan, State::kQ}) {
    LAMINA_ASSIGN_OR_RETURN(const bool did, step_in(state));
    if (!did) continue;
    is_idle_ = false;
    return true;
  }
  is_idle_ = true;
  return false;
}

Result<bool> AttentionWorker::step_in(State state) {
  const auto count = static_cast<uint32_t>(micro_batches_.size());
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t micro_batch = (next_batch_ + i) % count;
    if (micro_batches_[micro_batch].state != state) continue;
    LAMINA_ASSIGN_OR_RETURN(const auto message, find_message(micro_batch));
    if (!message) continue;
    if (state == State::kKv) next_batch_ = (micro_batch + 1) % count;
    note_progress();  // before is_in_step: a long idle time must not look like a hanging step
    stats_.is_in_step = true;
    const Status handled = handle(micro_batch, *message);
    note_progress();
    stats_.is_in_step = num_in_step_ > 0;
    if (handled.ok()) return true;
    refuse(micro_batch, handled);
    return handled;
  }
  return false;
}

Result<std::optional<std::span<const std::byte>>> AttentionWorker::find_message(
    uint32_t micro_batch) {
  using Found = std::optional<std::span<const std::byte>>;
  if (micro_batches_[micro_batch].state != State::kPlan) {
    const AwaitedMessage message = tensors_of(micro_batch);
    LAMINA_ASSIGN_OR_RETURN(const bool there, is_there(message));
    return there ? Found(message.endpoint->payload(message.slot)) : std::nullopt;
  }
  LAMINA_ASSIGN_OR_RETURN(const auto plan, plans_.find(micro_batch));
  if (!plan) return Found();
  micro_batches_[micro_batch].first_replica = plan->replica;
  return Found(plan->message);
}

Status AttentionWorker::handle(uint32_t micro_batch, std::span<const std::byte> message) {
  stats_.bytes_received += message.size();
  switch (micro_batches_[micro_batch].state) {
    case State::kPlan:
      return handle_plan(micro_batch, message);
    case State::kQ:
      return handle_q(micro_batch, message);
    case State::kKv:
      break;
  }
  return handle_kv(micro_batch, message);
}

Status AttentionWorker::handle_plan(uint32_t micro_batch, std::span<const std::byte> message) {
  LAMINA_RETURN_IF_ERROR(plans_.take(micro_batch, message, plan_));
  LAMINA_RETURN_IF_ERROR(core_->begin_step(plan_));
  stats_.num_blocks_used = core_->num_blocks_used();
  micro_batches_[micro_batch].state = State::kQ;
  ++num_in_step_;
  return {};
}

// The overlap of PAPER 6.3 begins here: q stays in its slot until k and v are there, but the cached
// keys need not wait for them.
Status AttentionWorker::handle_q(uint32_t micro_batch, std::span<const std::byte> message) {
  MicroBatch& batch = micro_batches_[micro_batch];
  LAMINA_ASSIGN_OR_RETURN(
      batch.q_payload,
      tensor_payload(micro_batch,
                     message,
                     MessageKind::kQ,
                     core_->num_tokens(static_cast<int32_t>(micro_batch)),
                     row_bytes(config_.core.num_heads, config_.core.kv.head_dim)));
  batch.state = State::kKv;
  batch.was_idle_for_q = is_idle_;
  batch.begin = clock_->now();
  batch.cached = {};
  if (!config_.core.overlap) return {};
  // k and v may be there already: then one pass is less work than two.
  LAMINA_ASSIGN_OR_RETURN(const bool is_complete, is_there(tensors_of(micro_batch)));
  if (is_complete) return {};
  LAMINA_RETURN_IF_ERROR(core_->start(
      static_cast<int32_t>(micro_batch), static_cast<int32_t>(batch.layer), q_tensor(micro_batch)));
  batch.cached = clock_->now() - batch.begin;
  return {};
}

Status AttentionWorker::handle_kv(uint32_t micro_batch, std::span<const std::byte> message) {
  const KvLayout& kv = config_.core.kv;
  const auto idx = static_cast<int32_t>(micro_batch);
  MicroBatch& batch = micro_batches_[micro_batch];
  const int32_t num_keys = core_->num_new_keys(idx);
  const size_t key_bytes = row_bytes(kv.num_kv_heads, kv.head_dim);
  const size_t value_bytes = kv.latent ? 0 : row_bytes(kv.num_kv_heads, kv.value_dim);
  LAMINA_ASSIGN_OR_RETURN(
      const auto payload,
      tensor_payload(micro_batch, message, MessageKind::kKv, num_keys, key_bytes + value_bytes));
  const TimePoint begin = clock_->now();
  if (batch.cached == Duration::zero()) batch.begin = begin;  // nothing was done before
  // Operators only read them; TensorView has no const form.
  auto* keys = const_cast<std::byte*>(payload.data());
  std::byte* values = keys + static_cast<size_t>(num_keys) * key_bytes;
  LAMINA_RETURN_IF_ERROR(
      core_->append(idx,
                    static_cast<int32_t>(batch.layer),
                    {keys, config_.dtype, {num_keys, kv.num_kv_heads, kv.head_dim}},
                    {values, config_.dtype, {num_keys, kv.num_kv_heads, kv.value_dim}}));
  LAMINA_RETURN_IF_ERROR(reply(micro_batch, begin));
  stats_.attention_ns += (batch.cached + (clock_->now() - begin)).count();
  end_layer(batch, core_->num_tokens(idx));
  return {};
}

void AttentionWorker::end_layer(MicroBatch& batch, int32_t num_tokens) {
  batch.state = State::kQ;
  if (++batch.layer < unsigned_of(config_.core.kv.num_layers)) return;
  stats_.num_tokens += unsigned_of(num_tokens);
  ++stats_.num_steps;
  batch.layer = 0;
  batch.state = State::kPlan;
  --num_in_step_;
}

Result<std::span<const std::byte>> AttentionWorker::tensor_payload(
    uint32_t micro_batch,
    std::span<const std::byte> message,
    MessageKind kind,
    int32_t num_rows,
    size_t row_bytes) const {
  const MicroBatch& batch = micro_batches_[micro_batch];
  LAMINA_ASSIGN_OR_RETURN(const wire::MessageHeader head,
                          wire::decode_header(message,
                                              {.kind = kind,
                                               .epoch = config_.epoch,
                                               .step = plans_.step_of(micro_batch),
                                               .layer = batch.layer,
                                               .micro_batch = micro_batch}));
  const size_t expected_bytes = static_cast<size_t>(num_rows) * row_bytes;
  if (head.num_rows != unsigned_of(num_rows) || head.payload_bytes != expected_bytes ||
      head.dtype != static_cast<uint16_t>(config_.dtype)) {
    return data_loss(
        fmt::format("layer {}: {} rows in {} bytes of dtype {}, expected {} in {} of dtype {}",
                    batch.layer,
                    head.num_rows,
                    head.payload_bytes,
                    head.dtype,
                    num_rows,
                    expected_bytes,
                    static_cast<uint16_t>(config_.dtype)));
  }
  return message.subspan(sizeof(head));
}

// ---- the answer ----

// Attention straight into the peer's slot: out, and for a partial its lse behind it.
Status AttentionWorker::reply(uint32_t micro_batch, TimePoint resumed) {
  const auto idx = static_cast<int32_t>(micro_batch);
  MicroBatch& batch = micro_batches_[micro_batch];
  const int64_t num_tokens = core_->num_tokens(idx);
  const int32_t num_heads = config_.core.num_heads;
  const bool is_partial = core_->is_partial(idx);
  wire::MessageHeader head = reply_header(micro_batch);
  head.num_rows = static_cast<uint32_t>(num_tokens);
  const DType dtype = is_partial ? DType::kF32 : config_.dtype;
  head.dtype = static_cast<uint16_t>(dtype);
  TensorView out = {nullptr, dtype, {num_tokens, num_heads, config_.core.kv.value_dim}};
  TensorView lse = {nullptr, DType::kF32, {num_tokens, num_heads}};
  head.payload_bytes = out.size_bytes() + (is_partial ? lse.size_bytes() : 0);
  const size_t message_bytes = sizeof(head) + head.payload_bytes;
  const SlotIdx slot = wire::slot_of(MessageKind::kOut, micro_batch, batch.layer);
  Endpoint& replica = replica_of(micro_batch, batch.layer + 1);
  const std::span<std::byte> message = replica.stage(slot, message_bytes);
  out.data = message.data() + sizeof(head);
  lse.data = out.data + out.size_bytes();
  LAMINA_RETURN_IF_ERROR(
      core_->attend(idx, static_cast<int32_t>(batch.layer), q_tensor(micro_batch), out, lse));
  stats_.bytes_sent += message_bytes;
  if (batch.was_idle_for_q) head.flags |= wire::kIdleForQ;
  if (is_idle_) head.flags |= wire::kIdleForKv;
  head.begin_ns = batch.begin.time_since_epoch().count();
  head.cached_ns = batch.cached.count();
  head.gap_ns = (resumed - batch.begin - batch.cached).count();
  head.rest_ns = (clock_->now() - resumed).count();
  wire::encode_header(head, message);
  const uint32_t num_layers = unsigned_of(config_.core.kv.num_layers);
  return replica.commit(
      slot,
      message_bytes,
      wire::sequence_number(plans_.step_of(micro_batch), batch.layer, num_layers));
}

// Tells the model worker, which may be waiting for layer 0 of a step whose plan was bad, that
// nothing will come.
void AttentionWorker::refuse(uint32_t micro_batch, const Status& reason) {
  const MicroBatch& batch = micro_batches_[micro_batch];
  wire::MessageHeader head = reply_header(micro_batch);
  head.status = static_cast<uint8_t>(reason.code());
  const SlotIdx slot = wire::slot_of(MessageKind::kOut, micro_batch, batch.layer);
  Endpoint& replica = replica_of(micro_batch, batch.layer + 1);
  const std::span<std::byte> message = replica.stage(slot, sizeof(head));
  wire::encode_header(head, message);
  // The endpoint may be down already: then there is nobody to tell.
  static_cast<void>(replica.commit(slot, sizeof(head), wire::kRefusalSeq));
}

wire::MessageHeader AttentionWorker::reply_header(uint32_t micro_batch) const {
  const MicroBatch& batch = micro_batches_[micro_batch];
  wire::MessageHeader head;
  head.kind = static_cast<uint16_t>(MessageKind::kOut);
  head.epoch = config_.epoch;
  head.step = plans_.step_of(micro_batch);
  head.layer = batch.layer;
  head.micro_batch = micro_batch;
  head.dtype = static_cast<uint16_t>(config_.dtype);
  return head;
}

TensorView AttentionWorker::q_tensor(uint32_t micro_batch) const {
  // Operators only read it; TensorView has no const form.
  return {const_cast<std::byte*>(micro_batches_[micro_batch].q_payload.data()),
          config_.dtype,
          {core_->num_tokens(static_cast<int32_t>(micro_batch)),
           config_.core.num_heads,
           config_.core.kv.head_dim}};
}

size_t AttentionWorker::row_bytes(int32_t num_heads, int32_t width) const {
  return static_cast<size_t>(num_heads) * static_cast<size_t>(width) * dtype_bytes(config_.dtype);
}

}  // namespace lamina
