#include "worker/model_replica.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/cpu_time.h"
#include "device/waiting_time.h"
#include "wire/messages.h"
#include "worker/replica_slots.h"

namespace lamina {

using wire::MessageKind;

namespace {

// CPU time of this thread, but for spinning until a GPU has done its work.
Duration thread_host_time() {
  return thread_cpu_time() - thread_time_waiting();
}

}  // namespace

ModelReplica::ModelReplica(const ModelReplicaConfig& config,
                           const ReplicaLinks& links,
                           SliceRunner& runner,
                           StreamView stream,
                           const Clock& clock)
    : config_(config),
      links_(links),
      runner_(runner),
      stream_(stream),
      clock_(&clock),
      sequences_(config.limits.max_sequences),
      batches_(static_cast<size_t>(config.rotation.num_micro_batches)),
      order_(batches_.size()) {
  std::iota(order_.begin(), order_.end(), 0);
  LAMINA_CHECK_EQ(static_cast<int32_t>(links_.replicas.size()), config_.rotation.num_replicas);
  LAMINA_CHECK_EQ(static_cast<int32_t>(links_.attention.size()), runner_.num_ranks());
}

// ---- the loop of a thread or process ----

Status ModelReplica::serve(const std::atomic<bool>& should_stop,
                           WaitPolicy policy,
                           Duration idle_check) {
  std::vector<AwaitedMessage> awaited;
  while (!should_stop) {
    const Duration before = thread_host_time();
    LAMINA_ASSIGN_OR_RETURN(const bool did_something, step());
    if (did_something) {
      stats_.host_ns += (thread_host_time() - before).count();
      continue;
    }
    awaited.clear();
    add_awaited(awaited);
    const bool is_busy = std::any_of(
        batches_.begin(), batches_.end(), [](const MicroBatch& b) { return b.next_slice; });
    const TimePoint begin = clock_->now();
    const Status waited = wait_any(awaited, Deadline::after(idle_check), policy);
    if (is_busy) stats_.wait_ns += (clock_->now() - begin).count();
    if (!waited.ok() && waited.code() != StatusCode::kDeadlineExceeded) return waited;
  }
  return {};
}

void ModelReplica::add_awaited(std::vector<AwaitedMessage>& awaited) const {
  for (int32_t i = 0; i < config_.rotation.num_micro_batches; ++i) {
    const MicroBatch& b = batch(i);
    if (!b.next_slice) {
      const AwaitedMessage next = {links_.engine, step_slot(i), b.step.step + 1};
      // One whose turn has not come is no news.
      const uint64_t received = links_.engine->received_seq(next.slot);
      if (received < next.seq || received <= last_step_ + 1) awaited.push_back(next);
      continue;
    }
    if (only_enqueues()) continue;  // others of its group are awaited
    const size_t before = awaited.size();
    const int32_t slice = *b.next_slice;
    if (comes_from_elsewhere(b, slice)) {
      const AwaitedMessage carried = carried_into(i);
      if (carried.endpoint->received_seq(carried.slot) < carried.seq) awaited.push_back(carried);
    }
    if (slice == 0) continue;
    for (const AttentionBackend* backend : links_.attention) {
      backend->add_awaited(i, slice - 1, awaited);
    }
    // All is there: the poll of another micro-batch read it. This step's own message is too.
    if (awaited.size() == before) awaited.push_back({links_.engine, step_slot(i), b.step.step});
  }
  add_unsent_messages(awaited);
}

void ModelReplica::send_unsent() {
  links_.engine->send_unsent();
  for (Endpoint* replica : links_.replicas) {
    if (replica != nullptr) replica->send_unsent();
  }
  for (AttentionBackend* backend : links_.attention) backend->send_unsent();
}

// Who runs the last slice but one of a step awaits nothing more of it, and the attention workers
// that have its q and k wait for the rest of them.
void ModelReplica::add_unsent_messages(std::vector<AwaitedMessage>& awaited) const {
  add_unsent(*links_.engine, awaited);
  for (Endpoint* replica : links_.replicas) {
    if (replica != nullptr) add_unsent(*replica, awaited);
  }
  for (const AttentionBackend* backend : links_.attention) {
    backend->add_unsent_messages(awaited);
  }
}

// Steps first: they cost little, and the attention workers wait for the plans that follow.
Result<bool> ModelReplica::step() {
  send_unsent();
  LAMINA_ASSIGN_OR_RETURN(const bool began, begin_next_step());
  if (began) return true;
  return only_enqueues() ? run_group() : run_next_slice();
}

// ---- the beginning of a step ----

// Steps are begun in their order, whichever micro-batch they are of.
Result<bool> ModelReplica::begin_next_step() {
  for (int32_t i = 0; i < config_.rotation.num_micro_batches; ++i) {
    if (batch(i).next_slice) continue;
    const PollResult result = links_.engine->poll(step_slot(i), batch(i).step.step + 1);
    if (result == PollResult::kDown) return unavailable("the engine is gone");
    if (result == PollResult::kPending) continue;
    if (links_.engine->received_seq(step_slot(i)) > last_step_ + 1) continue;
    const Status begun = begin_step(i);
    if (begun.ok()) return true;
    report(i, begun);
    return begun;
  }
  return false;
}

Status ModelReplica::begin_step(int32_t micro_batch) {
  MicroBatch& b = batch(micro_batch);
  LAMINA_RETURN_IF_ERROR(decode_step(
      links_.engine->payload(step_slot(micro_batch)), config_.epoch, config_.limits, b.step));
  if (b.step.step != last_step_ + 1 || b.step.micro_batch != micro_batch) {
    return data_loss(fmt::format("step {} of micro-batch {}, expected {} of {}",
                                 b.step.step,
                                 b.step.micro_batch,
                                 last_step_ + 1,
                                 micro_batch));
  }
  ++last_step_;
  num_following_ = b.step.num_following;
  LAMINA_RETURN_IF_ERROR(sequences_.apply(b.step.plan, b.inputs));
  b.next_slice = own_slice(b, 0);
  // Where nothing of a step is run, nothing that is enqueued for it is waited for.
  if (b.next_slice || !only_enqueues()) {
    LAMINA_RETURN_IF_ERROR(runner_.begin(micro_batch, b.inputs.view()));
  }
  const StepStart start = {.first_replica = b.step.first_replica,
                           .num_rows = b.next_slice ? runner_.num_rows(micro_batch) : 0,
                           .num_following = b.step.num_following};
  for (AttentionBackend* backend : links_.attention) {
    LAMINA_RETURN_IF_ERROR(backend->begin_step(micro_batch, start, b.step.plan));
  }
  b.waits_since = clock_->now();
  return acknowledge(micro_batch);
}

// The engine may send the next step of the micro-batch once all replicas have read this one: those
// without a slice of it would be no part of any other answer.
Status ModelReplica::acknowledge(int32_t micro_batch) {
  const wire::MessageHeader head{.kind = static_cast<uint16_t>(MessageKind::kAck),
                                 .epoch = config_.epoch,
                                 .step = last_step_,
                                 .micro_batch = static_cast<uint32_t>(micro_batch)};
  const SlotIdx slot = ack_slot(micro_batch);
  wire::encode_header(head, links_.engine->stage(slot, sizeof(head)));
  return links_.engine->commit(slot, sizeof(head), last_step_);
}

// ---- slices ----

Result<bool> ModelReplica::run_next_slice() {
  sort_by_turn();
  for (const int32_t i : order_) {
    if (!batch(i).next_slice) continue;
    Result<bool> runnable = is_runnable(i);
    Status status = runnable.status();
    if (status.ok() && !*runnable) status = check_patience(batch(i));
    if (status.ok() && !*runnable) continue;
    if (status.ok()) status = run_slice(i);
    if (status.ok()) return true;
    report(i, status);
    return status;
  }
  return false;
}

// Micro-batches in the order of rotation: who ran longest ago is first.
void ModelReplica::sort_by_turn() {
  std::sort(order_.begin(), order_.end(), [this](int32_t a, int32_t b) {
    return std::pair(batch(a).last_turn, a) < std::pair(batch(b).last_turn, b);
  });
}

Status ModelReplica::check_patience(const MicroBatch& b) const {
  const Duration waited = clock_->now() - b.waits_since;
  if (waited <= config_.wait_limit) return {};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(waited).count();
  return deadline_exceeded(
      fmt::format("slice {} of step {} has waited {} s for what other workers send",
                  *b.next_slice,
                  b.step.step,
                  seconds));
}

Result<bool> ModelReplica::is_runnable(int32_t micro_batch) {
  const MicroBatch& b = batch(micro_batch);
  const int32_t slice = *b.next_slice;
  if (slice == 0) return true;
  bool has_all = true;  // all are polled: each may tell that its sender is gone
  if (comes_from_elsewhere(b, slice)) {
    const AwaitedMessage carried = carried_into(micro_batch);
    const PollResult result = carried.endpoint->poll(carried.slot, carried.seq);
    if (result == PollResult::kDown) return unavailable("another model replica is gone");
    has_all = result == PollResult::kReady;
  }
  for (AttentionBackend* backend : links_.attention) {
    LAMINA_ASSIGN_OR_RETURN(const bool has_output, backend->has_output(micro_batch, slice - 1));
    has_all &= has_output;
  }
  return has_all;
}

Status ModelReplica::run_slice(int32_t micro_batch) {
  const int32_t slice = *batch(micro_batch).next_slice;
  const SliceRun run = {micro_batch, slice, slice + 1};
  return run_slices(std::span(&run, 1));
}

// With a stride attention hands on what is carried. One of the runs may end its step: last slices
// leave logits in one place.
Status ModelReplica::run_slices(std::span<const SliceRun> runs) {
  const TimePoint begin = clock_->now();
  for (const SliceRun& run : runs) {
    MicroBatch& b = batch(run.micro_batch);
    b.last_turn = ++num_turns_;
    const bool comes_by_host = run.stride == 1 && comes_from_elsewhere(b, run.begin);
    if (comes_by_host) LAMINA_RETURN_IF_ERROR(take_carried(run.micro_batch));
  }
  LAMINA_RETURN_IF_ERROR(runner_.run_slices(runs, links_.attention));
  bool was_waited_for = false;
  for (const SliceRun& run : runs) {
    MicroBatch& b = batch(run.micro_batch);
    const bool is_last = run.last() + 1 == runner_.num_slices();
    was_waited_for |= is_last;
    if (is_last) LAMINA_RETURN_IF_ERROR(finish(run.micro_batch));
    if (!is_last && run.stride == 1) LAMINA_RETURN_IF_ERROR(hand_on(run.micro_batch, run.last()));
    b.next_slice = own_slice(b, run.last() + 1);
    b.waits_since = clock_->now();
    note_slices(run, begin);
  }
  if (only_enqueues() && !was_waited_for) LAMINA_RETURN_IF_ERROR(wait_for_slices());
  stats_.slice_ns += (clock_->now() - begin).count();
  return {};
}

// ---- groups of steps, where attention's calls only enqueue ----

Result<bool> ModelReplica::run_group() {
  if (num_following_ > 0) return false;
  const std::vector<SliceRun> runs = enqueueable_runs();
  if (runs.empty()) return false;
  const Status status = run_slices(runs);
  if (status.ok()) return true;
  report(runs.front().micro_batch, status);
  return status;
}

// What is left of the group but for all last slices except the first: they leave logits in one
// place, so that each is run when those before were sampled from. Nobody waits for them.
std::vector<SliceRun> ModelReplica::enqueueable_runs() const {
  const int32_t last_slice = runner_.num_slices() - 1;
  std::vector<SliceRun> runs;
  bool has_last = false;
  for (int32_t i = 0; i < config_.rotation.num_micro_batches; ++i) {
    const std::optional<int32_t> next = batch(i).next_slice;
    if (!next) continue;
    SliceRun run = {i, *next, last_slice + 1, config_.rotation.stride()};
    if (run.has(last_slice) && std::exchange(has_last, true)) run.end = last_slice;
    if (run.count() > 0) runs.push_back(run);
  }
  return runs;
}

// An error is noticed now, and not when others have waited in vain for what was not sent.
Status ModelReplica::wait_for_slices() {
  LAMINA_RETURN_IF_ERROR(synchronize(stream_));
  return check_received();
}

Status ModelReplica::check_received() {
  LAMINA_RETURN_IF_ERROR(runner_.check_exchanges());
  for (const AttentionBackend* backend : links_.attention) {
    LAMINA_RETURN_IF_ERROR(backend->check_received());
  }
  return {};
}

void ModelReplica::note_slices(const SliceRun& run, TimePoint begin) {
  const MicroBatch& b = batch(run.micro_batch);
  const TimePoint end = clock_->now();
  const auto num_tokens = static_cast<int32_t>(b.inputs.token_ids.size());
  stats_.num_slices += static_cast<uint64_t>(run.count());
  if (links_.meter != nullptr && run.count() == 1) {
    const SendTimes sends = links_.meter->noted_sends(run.micro_batch);
    const bool sent_q = sends.layer == run.begin && sends.q >= begin;
    links_.meter->add_slice(b.step.plan.is_decoding(),
                            num_tokens,
                            end - begin,
                            sent_q ? std::optional(sends.q - begin) : std::nullopt);
  }
  if (links_.trace == nullptr) return;
  links_.trace->add_span({.row = links_.trace_rows[static_cast<size_t>(config_.replica_idx)],
                          .name = "slice",
                          .category = "slice",
                          .begin = begin,
                          .end = end,
                          .step = b.step.step,
                          .micro_batch = run.micro_batch,
                          .layer = std::min(run.begin, runner_.num_slices() - 2),
                          .slice = run.begin,
                          .num_tokens = num_tokens});
}

bool ModelReplica::comes_from_elsewhere(const MicroBatch& b, int32_t slice_idx) const {
  return slice_idx > 0 && replica_of(b, slice_idx - 1) != config_.replica_idx;
}

AwaitedMessage ModelReplica::carried_into(int32_t micro_batch) const {
  const MicroBatch& b = batch(micro_batch);
  const int32_t slice = *b.next_slice;
  const auto sender = static_cast<size_t>(replica_of(b, slice - 1));
  return {links_.replicas[sender], carried_slot(micro_batch, slice), carried_seq(b, slice)};
}

Status ModelReplica::take_carried(int32_t micro_batch) {
  const MicroBatch& b = batch(micro_batch);
  const int32_t slice = *b.next_slice;
  const AwaitedMessage carried = carried_into(micro_batch);
  const std::span<const std::byte> message = carried.endpoint->payload(carried.slot);
  LAMINA_ASSIGN_OR_RETURN(const wire::MessageHeader head,
                          wire::decode_header(message,
                                              {.kind = MessageKind::kCarried,
                                               .epoch = config_.epoch,
                                               .step = b.step.step,
                                               .layer = static_cast<uint32_t>(slice),
                                               .micro_batch = static_cast<uint32_t>(micro_batch)}));
  const size_t expected = runner_.carried_bytes(micro_batch, slice - 1);
  if (head.payload_bytes != expected) {
    return data_loss(fmt::format(
        "slice {}: {} bytes of carried values, expected {}", slice, head.payload_bytes, expected));
  }
  runner_.unpack_carried(micro_batch, slice - 1, message.subspan(sizeof(head)));
  if (links_.trace != nullptr) trace_carried(replica_of(b, slice - 1), head.begin_ns);
  return {};
}

// Replicas with a trace are threads of one process: they have one clock.
void ModelReplica::trace_carried(int32_t sender, int64_t sent_ns) {
  links_.trace->add_arrow({.name = "carried",
                           .from_row = links_.trace_rows[static_cast<size_t>(sender)],
                           .from = TimePoint(Duration(sent_ns)),
                           .to_row = links_.trace_rows[static_cast<size_t>(config_.replica_idx)],
                           .to = clock_->now()});
}

// To the replica that runs the next slice, unless that is this one.
Status ModelReplica::hand_on(int32_t micro_batch, int32_t slice_idx) {
  const MicroBatch& b = batch(micro_batch);
  const int32_t next = slice_idx + 1;
  const int32_t receiver = replica_of(b, next);
  if (receiver == config_.replica_idx) return {};
  wire::MessageHeader head{.kind = static_cast<uint16_t>(MessageKind::kCarried),
                           .epoch = config_.epoch,
                           .step = b.step.step,
                           .layer = static_cast<uint32_t>(next),
                           .micro_batch = static_cast<uint32_t>(micro_batch),
                           .num_rows = static_cast<uint32_t>(b.inputs.token_ids.size())};
  head.payload_bytes = runner_.carried_bytes(micro_batch, slice_idx);
  const size_t message_bytes = sizeof(head) + head.payload_bytes;
  Endpoint& endpoint = *links_.replicas[static_cast<size_t>(receiver)];
  const SlotIdx slot = carried_slot(micro_batch, next);
  const std::span<std::byte> message = endpoint.stage(slot, message_bytes);
  head.begin_ns = clock_->now().time_since_epoch().count();
  wire::encode_header(head, message);
  runner_.pack_carried(micro_batch, slice_idx, message.subspan(sizeof(head)));
  stats_.bytes_carried += message_bytes;
  return endpoint.commit(slot, message_bytes, carried_seq(b, next));
}

// ---- the end of a step ----

Status ModelReplica::finish(int32_t micro_batch) {
  const MicroBatch& b = batch(micro_batch);
  LAMINA_ASSIGN_OR_RETURN(std::vector<SequenceOutput> outputs,
                          sequences_.sample(b.step.plan, b.inputs, runner_.logits(), stream_));
  LAMINA_RETURN_IF_ERROR(check_received());
  return send_result({.step = b.step.step,
                      .micro_batch = micro_batch,
                      .status = {},
                      .outputs = std::move(outputs)},
                     b.step.step);
}

// Tells the engine that nothing will come.
void ModelReplica::report(int32_t micro_batch, const Status& failure) {
  const uint64_t step = std::max<uint64_t>(batch(micro_batch).step.step, 1);
  // The endpoint may be down already: then there is nobody to tell.
  static_cast<void>(send_result(
      {.step = step, .micro_batch = micro_batch, .status = failure, .outputs = {}}, kFailureSeq));
}

Status ModelReplica::send_result(const StepResult& result, uint64_t seq) {
  const SlotIdx slot = result_slot(result.micro_batch);
  const size_t size_bytes = encoded_bytes(result);
  encode_result(result, config_.epoch, links_.engine->stage(slot, size_bytes));
  return links_.engine->commit(slot, size_bytes, seq);
}

// ---- rotation ----

std::optional<int32_t> ModelReplica::own_slice(const MicroBatch& b, int32_t from) const {
  const std::optional<int32_t> slice =
      config_.rotation.next_slice(config_.replica_idx, b.step.first_replica, from);
  return slice && *slice < runner_.num_slices() ? slice : std::nullopt;
}

int32_t ModelReplica::replica_of(const MicroBatch& b, int32_t slice_idx) const {
  return config_.rotation.replica_of(b.step.first_replica, slice_idx);
}

uint64_t ModelReplica::carried_seq(const MicroBatch& b, int32_t slice_idx) const {
  return b.step.step * static_cast<uint64_t>(runner_.num_slices()) +
         static_cast<uint64_t>(slice_idx);
}

}  // namespace lamina
