#include "worker/remote_attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "wire/slots.h"
#include "worker/packing.h"

namespace lamina {

using wire::MessageKind;

namespace {

KvPartition partition_of(int32_t num_kv_heads, std::span<const AttentionPeer> peers) {
  KvPartition partition{.num_kv_heads = num_kv_heads, .num_blocks = 0, .tiles = {}};
  for (const AttentionPeer& peer : peers) {
    partition.num_blocks = std::max(partition.num_blocks, peer.blocks.end);
    partition.tiles.push_back({.kv_heads = peer.kv_heads, .blocks = peer.blocks});
  }
  return partition;
}

// Rows of `out` that a part's rows [i, i + N) stand for.
template <typename Visit>
Status for_each_range(std::span<const RowRange> ranges, const Visit& visit) {
  int64_t first = 0;
  for (const RowRange& range : ranges) {
    LAMINA_RETURN_IF_ERROR(visit(first, range));
    first += range.count;
  }
  return {};
}

// The worker's word: it may say anything.
RemoteAttention::WorkTimes work_times(const wire::MessageHeader& head, Duration most) {
  const auto bounded = [&](int64_t ns) { return std::clamp<Duration>(Duration(ns), {}, most); };
  return {.begin = TimePoint(Duration(head.begin_ns)),
          .cached = bounded(head.cached_ns),
          .gap = bounded(head.gap_ns),
          .rest = bounded(head.rest_ns)};
}

}  // namespace

RemoteAttention::RemoteAttention(const RemoteAttentionConfig& config,
                                 std::vector<AttentionPeer> peers,
                                 StreamView stream)
    : OffloadedBackend(std::move(peers)),
      config_(config),
      clocks_(this->peers().size()),
      partitioner_(blocks_of_peers(), config.max_sequences, config.block_size),
      micro_batches_(static_cast<size_t>(config.rotation.num_micro_batches)) {
  for (const AttentionPeer& peer : this->peers())
    num_workers_ = std::max(num_workers_, peer.worker_idx + 1);
  const KvPartition partition = partition_of(config_.num_kv_heads, this->peers());
  const Status covered = partition.verify();
  LAMINA_CHECK(covered.ok(), covered.message());
  if (partition.lanes().size() > 1) {
    merge_.emplace(config_.max_tokens, config_.num_heads, config_.value_dim, stream);
  }
}

Status RemoteAttention::begin_step(int32_t micro_batch,
                                   const StepStart& start,
                                   const StepPlan& plan) {
  MicroBatch& step = micro_batches_[static_cast<size_t>(micro_batch)];
  step.first_replica = start.first_replica;
  LAMINA_RETURN_IF_ERROR(partitioner_.partition(plan, micro_batch, step.parts));
  step.num_tokens = plan.num_tokens();
  step.is_decoding = plan.is_decoding();
  step.has_partials = false;
  for (size_t i = 0; i < peers().size(); ++i) {
    if (!step.parts[i].takes_part()) continue;
    step.has_partials |= step.parts[i].is_partial;
    if (start.first_replica != config_.replica_idx) continue;
    LAMINA_RETURN_IF_ERROR(send_plan(i, step.parts[i].plan, config_.epoch, config_.num_layers));
  }
  return {};
}

Status RemoteAttention::send_q(int32_t micro_batch, int32_t attention_idx, TensorView q) {
  ++num_calls_;
  if (config_.meter != nullptr) {
    config_.meter->note_q(micro_batch, attention_idx, steady_clock().now());
  }
  for (size_t i = 0; i < peers().size(); ++i) {
    const Place place = {i, micro_batch, attention_idx};
    const HeadRange heads = query_heads(i);
    const TensorView part = q.columns(heads.begin, heads.count());
    LAMINA_RETURN_IF_ERROR(
        send_rows(place, MessageKind::kQ, part_of(place).q_rows, std::span(&part, 1)));
  }
  return {};
}

Status RemoteAttention::send_kv(int32_t micro_batch,
                                int32_t attention_idx,
                                TensorView k,
                                TensorView v) {
  for (size_t i = 0; i < peers().size(); ++i) {
    const Place place = {i, micro_batch, attention_idx};
    const HeadRange heads = peers()[i].kv_heads;
    const std::array<TensorView, 2> both = {k.columns(heads.begin, heads.count()),
                                            v.columns(heads.begin, heads.count())};
    const auto tensors = std::span(both).first(config_.latent ? 1 : 2);
    LAMINA_RETURN_IF_ERROR(send_rows(place, MessageKind::kKv, part_of(place).kv_rows, tensors));
  }
  if (config_.meter != nullptr) config_.meter->note_kv(micro_batch, steady_clock().now());
  return {};
}

Status RemoteAttention::send_rows(const Place& place,
                                  MessageKind kind,
                                  std::span<const RowRange> rows,
                                  std::span<const TensorView> tensors) {
  const TileStep& part = part_of(place);
  if (!part.takes_part()) return {};
  wire::MessageHeader head{.kind = static_cast<uint16_t>(kind),
                           .epoch = config_.epoch,
                           .step = part.plan.step,
                           .layer = static_cast<uint32_t>(place.layer),
                           .micro_batch = static_cast<uint32_t>(place.micro_batch),
                           .dtype = static_cast<uint16_t>(config_.dtype)};
  size_t row_bytes = 0;
  for (const TensorView& tensor : tensors) row_bytes += tensor.row_bytes();
  for (const RowRange& range : rows) head.num_rows += static_cast<uint32_t>(range.count);
  head.payload_bytes = head.num_rows * row_bytes;
  const size_t message_bytes = sizeof(head) + head.payload_bytes;
  Endpoint& endpoint = *peers()[place.peer_idx].endpoint;
  const SlotIdx slot = wire::slot_of(kind, head.micro_batch, head.layer);
  std::span<std::byte> message = endpoint.stage(slot, message_bytes);
  wire::encode_header(head, message);
  std::span<std::byte> payload = message.subspan(sizeof(head));
  for (const TensorView& tensor : tensors) {
    for (const RowRange& range : rows) {
      const TensorView piece = tensor.rows(range.begin, range.count);
      pack_rows(piece, payload);
      payload = payload.subspan(piece.size_bytes());
    }
  }
  stats(place.peer_idx).bytes_sent += message_bytes;
  const Status sent = endpoint.commit(slot, message_bytes, sequence_number(place));
  return sent.ok() ? sent : about(place.peer_idx, sent);
}

Status RemoteAttention::receive(int32_t micro_batch, int32_t attention_idx, TensorView out) {
  MicroBatch& step = micro_batches_[static_cast<size_t>(micro_batch)];
  ++num_calls_;
  step.busy.assign(num_workers_, {});
  step.rest.assign(num_workers_, {});
  step.idle_flags = wire::kIdleForQ | wire::kIdleForKv;
  if (step.has_partials) {
    const bool has_sinks = !config_.sinks.empty();
    merge_->begin(step.num_tokens,
                  has_sinks
                      ? std::span<const float>(config_.sinks[static_cast<size_t>(attention_idx)])
                      : std::span<const float>());
  }
  for (size_t i = 0; i < peers().size(); ++i) {
    if (!step.parts[i].takes_part()) continue;
    const Status received = receive_from({i, micro_batch, attention_idx}, out);
    if (!received.ok()) return about(i, received);
  }
  note_times(micro_batch, attention_idx);
  if (step.has_partials) store_merged(step, out);
  return {};
}

std::optional<SendTimes> RemoteAttention::sends_of(int32_t micro_batch, int32_t layer) const {
  if (config_.meter == nullptr) return std::nullopt;
  const SendTimes sends = config_.meter->noted_sends(micro_batch);
  return sends.layer == layer ? std::optional(sends) : std::nullopt;
}

// A worker takes one of its tiles after the other, so its time is their sum. Tiles of other
// tensor-parallel ranks are not known here. Of the wire only a layer tells for which nobody let
// anything wait, all else is queueing: k and v where all workers waited for them, q where they were
// busy with it until k and v were there.
void RemoteAttention::note_times(int32_t micro_batch, int32_t layer) {
  MicroBatch& step = micro_batches_[static_cast<size_t>(micro_batch)];
  const std::optional<TimePoint> seen = std::exchange(step.outputs_seen, std::nullopt);
  if (config_.meter == nullptr) return;
  const Duration rest = *std::max_element(step.rest.begin(), step.rest.end());
  const Duration whole = *std::max_element(step.busy.begin(), step.busy.end());
  const Duration sum = std::accumulate(step.busy.begin(), step.busy.end(), Duration());
  config_.meter->add_attention(step.is_decoding, whole, rest, sum);
  const std::optional<SendTimes> sends = sends_of(micro_batch, layer);
  if (!seen || !sends || !step.is_decoding) return;
  if ((step.idle_flags & wire::kIdleForKv) != 0) {
    config_.meter->add_wire(*seen - sends->kv - rest);
  } else if ((step.idle_flags & wire::kIdleForQ) != 0) {
    config_.meter->add_wire(*seen - sends->q - whole);
  }
}

Result<bool> RemoteAttention::has_output(int32_t micro_batch, int32_t attention_idx) {
  MicroBatch& step = micro_batches_[static_cast<size_t>(micro_batch)];
  bool has_all = true;
  for (size_t i = 0; i < peers().size(); ++i) {
    if (!step.parts[i].takes_part()) continue;
    const AwaitedMessage output = output_of({i, micro_batch, attention_idx});
    const PollResult result = output.endpoint->poll(output.slot, output.seq);
    // Down: with receive()'s words.
    if (result == PollResult::kDown)
      return about(
          i, output.endpoint->wait(output.slot, output.seq, Deadline::expired(), config_.wait));
    has_all &= result == PollResult::kReady;
  }
  if (!has_all) {
    step.polled_at = num_calls_;
  } else if (std::exchange(step.polled_at, std::nullopt) == num_calls_) {
    step.outputs_seen = steady_clock().now();
  }
  return has_all;
}

void RemoteAttention::add_awaited(int32_t micro_batch,
                                  int32_t attention_idx,
                                  std::vector<AwaitedMessage>& awaited) const {
  const MicroBatch& step = micro_batches_[static_cast<size_t>(micro_batch)];
  for (size_t i = 0; i < peers().size(); ++i) {
    if (!step.parts[i].takes_part()) continue;
    const AwaitedMessage output = output_of({i, micro_batch, attention_idx});
    if (output.endpoint->received_seq(output.slot) < output.seq) awaited.push_back(output);
  }
}

void RemoteAttention::send_unsent() {
  for (const AttentionPeer& peer : peers()) peer.endpoint->send_unsent();
}

void RemoteAttention::add_unsent_messages(std::vector<AwaitedMessage>& awaited) const {
  for (const AttentionPeer& peer : peers()) add_unsent(*peer.endpoint, awaited);
}

AwaitedMessage RemoteAttention::output_of(const Place& place) const {
  return {peers()[place.peer_idx].endpoint.get(),
          wire::slot_of(MessageKind::kOut,
                        static_cast<uint32_t>(place.micro_batch),
                        static_cast<uint32_t>(place.layer)),
          sequence_number(place)};
}

HeadRange RemoteAttention::query_heads(size_t peer_idx) const {
  const int32_t group = config_.num_heads / config_.num_kv_heads;
  const HeadRange& kv_heads = peers()[peer_idx].kv_heads;
  return {kv_heads.begin * group, kv_heads.end * group};
}

const TileStep& RemoteAttention::part_of(const Place& place) const {
  return micro_batches_[static_cast<size_t>(place.micro_batch)].parts[place.peer_idx];
}

uint64_t RemoteAttention::sequence_number(const Place& place) const {
  return wire::sequence_number(part_of(place).plan.step,
                               static_cast<uint32_t>(place.layer),
                               static_cast<uint32_t>(config_.num_layers));
}

Status RemoteAttention::receive_from(const Place& place, TensorView out) {
  return part_of(place).is_partial ? receive_partial(place) : receive_whole(place, out);
}

// Waits for a peer's output and gives its payload, `bytes` of it in `dtype`.
Result<std::span<const std::byte>> RemoteAttention::receive_payload(const Place& place,
                                                                    DType dtype,
                                                                    size_t bytes) {
  const TileStep& part = part_of(place);
  const auto micro_batch = static_cast<uint32_t>(place.micro_batch);
  const auto layer = static_cast<uint32_t>(place.layer);
  const AwaitedMessage output = output_of(place);
  LAMINA_RETURN_IF_ERROR(output.endpoint->wait(
      output.slot, output.seq, Deadline::after(config_.reply_timeout), config_.wait));
  const std::span<const std::byte> message = output.endpoint->payload(output.slot);
  LAMINA_ASSIGN_OR_RETURN(const wire::MessageHeader head,
                          wire::decode_header(message,
                                              {.kind = MessageKind::kOut,
                                               .epoch = config_.epoch,
                                               .step = part.plan.step,
                                               .layer = layer,
                                               .micro_batch = micro_batch}));
  stats(place.peer_idx).bytes_received += message.size();
  MicroBatch& step = micro_batches_[micro_batch];
  const WorkTimes times = work_times(head, config_.reply_timeout);
  const size_t worker_idx = peers()[place.peer_idx].worker_idx;
  step.busy[worker_idx] += times.cached + times.rest;
  step.rest[worker_idx] += times.rest;
  step.idle_flags &= head.flags;
  if (config_.trace != nullptr) trace(place, times);
  if (head.status != 0)
    return internal_error(fmt::format("refused step {} with status {}", head.step, head.status));
  if (head.num_rows != part.num_q_rows || head.dtype != static_cast<uint16_t>(dtype) ||
      head.payload_bytes != bytes) {
    return data_loss(fmt::format("sent {} rows in {} bytes, expected {} in {}",
                                 head.num_rows,
                                 head.payload_bytes,
                                 part.num_q_rows,
                                 bytes));
  }
  return message.subspan(sizeof(head));
}

Status RemoteAttention::receive_whole(const Place& place, TensorView out) {
  const TileStep& part = part_of(place);
  const HeadRange heads = query_heads(place.peer_idx);
  const TensorView columns = out.columns(heads.begin, heads.count());
  const size_t row_bytes = columns.row_bytes();
  LAMINA_ASSIGN_OR_RETURN(
      const std::span<const std::byte> payload,
      receive_payload(place, out.dtype, static_cast<size_t>(part.num_q_rows) * row_bytes));
  return for_each_range(part.q_rows, [&](int64_t first, const RowRange& range) {
    const size_t begin = static_cast<size_t>(first) * row_bytes;
    const size_t count = static_cast<size_t>(range.count) * row_bytes;
    unpack_rows(payload.subspan(begin, count), columns.rows(range.begin, range.count));
    return Status();
  });
}

Status RemoteAttention::receive_partial(const Place& place) {
  const TileStep& part = part_of(place);
  const HeadRange heads = query_heads(place.peer_idx);
  const Shape out_shape = {part.num_q_rows, heads.count(), config_.value_dim};
  const Shape lse_shape = {part.num_q_rows, heads.count()};
  const auto num_heads = static_cast<size_t>(part.num_q_rows * heads.count());
  const size_t out_bytes = num_heads * static_cast<size_t>(config_.value_dim) * sizeof(float);
  LAMINA_ASSIGN_OR_RETURN(
      const std::span<const std::byte> payload,
      receive_payload(place, DType::kF32, out_bytes + num_heads * sizeof(float)));
  // Operators only read it; TensorView has no const form.
  auto* data = const_cast<std::byte*>(payload.data());
  const TensorView out = {data, DType::kF32, out_shape};
  const TensorView lse = {data + out_bytes, DType::kF32, lse_shape};
  return for_each_range(part.q_rows, [&](int64_t first, const RowRange& range) {
    return merge_->add(
        range.begin, heads, out.rows(first, range.count), lse.rows(first, range.count));
  });
}

// Spans of a worker's row, with arrows from the slice that sent q and to the one that goes on. Its
// clock is its own: the round trip of q and output tells how it differs from ours.
void RemoteAttention::trace(const Place& place, const WorkTimes& times) {
  const TimePoint now = steady_clock().now();
  const std::optional<SendTimes> sends = sends_of(place.micro_batch, place.layer);
  const Duration shift = clocks_[place.peer_idx].shift(
      sends ? std::optional(sends->q) : std::nullopt, times.begin, times.end(), now);
  const TraceRow row = config_.trace_rows[place.peer_idx];
  TraceSpan span{.row = row,
                 .name = "attention",
                 .category = "attention",
                 .begin = times.begin + shift + times.cached + times.gap,
                 .end = times.end() + shift,
                 .step = part_of(place).plan.step,
                 .micro_batch = place.micro_batch,
                 .layer = place.layer,
                 .num_tokens = static_cast<int32_t>(part_of(place).num_q_rows)};
  config_.trace->add_span(span);
  config_.trace->add_arrow(
      {.name = "out",
       .from_row = row,
       .from = span.end,
       .to_row = config_.trace_replicas[static_cast<size_t>(config_.replica_idx)],
       .to = now});
  const TimePoint first = times.begin + shift;
  if (times.cached > Duration::zero()) {
    span.name = "cached keys";
    span.begin = first;
    span.end = first + times.cached;
    config_.trace->add_span(span);
  }
  if (!sends) return;
  const TraceRow sender = config_.trace_replicas[static_cast<size_t>(sender_of(place))];
  const auto add_arrow = [&](std::string_view name, TimePoint from, TimePoint to) {
    config_.trace->add_arrow(
        {.name = name, .from_row = sender, .from = from, .to_row = row, .to = to});
  };
  const bool is_split = times.cached > Duration::zero();
  add_arrow("q", sends->q, is_split ? first : first + times.gap);
  add_arrow("k, v", sends->kv, first + times.cached + times.gap);
}

// Where several tiles hold parts of a head the same rows are stored more than once: with the same
// bits.
void RemoteAttention::store_merged(const MicroBatch& step, TensorView out) const {
  for (size_t i = 0; i < peers().size(); ++i) {
    if (!step.parts[i].is_partial) continue;
    const HeadRange heads = query_heads(i);
    const TensorView columns = out.columns(heads.begin, heads.count());
    for (const RowRange& range : step.parts[i].q_rows) {
      merge_->store(range.begin, heads, columns.rows(range.begin, range.count));
    }
  }
}

// The replica that ran the slice before the layer.
int32_t RemoteAttention::sender_of(const Place& place) const {
  const MicroBatch& step = micro_batches_[static_cast<size_t>(place.micro_batch)];
  return config_.rotation.replica_of(step.first_replica, place.layer);
}

}  // namespace lamina
