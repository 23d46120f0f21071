#include "worker/device_attention.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "transport/cuda_p2p/poll_pace.h"
#include "wire/slots.h"
#include "worker/device_transfers.h"

namespace lamina {

using wire::DeviceMessage;

namespace {

using Audience = StepPartitioner::Audience;

BlockRange all_blocks_of(std::span<const AttentionPeer> peers) {
  int32_t end = 0;
  for (const AttentionPeer& peer : peers) end = std::max(end, peer.blocks.end);
  return {0, end};
}

void check_partials(const DeviceAttentionConfig& config, size_t num_peers) {
  if (config.dtype != DType::kF32 && config.dtype != DType::kBF16) {
    throw Error(StatusCode::kUnimplemented,
                fmt::format("devices merge no outputs of {}", dtype_name(config.dtype)));
  }
  if (num_peers > kMaxLaunchMessages) {
    throw Error(StatusCode::kUnimplemented,
                fmt::format("devices merge the outputs of {} workers at most, not of {}",
                            kMaxLaunchMessages,
                            num_peers));
  }
}

}  // namespace

DeviceAttention::DeviceAttention(const DeviceAttentionConfig& config,
                                 std::vector<AttentionPeer> peers,
                                 StreamView stream,
                                 DeviceNeighbours neighbours)
    : OffloadedBackend(std::move(peers)),
      config_(config),
      stream_(use_device_of(stream)),
      neighbours_(std::move(neighbours)),
      all_blocks_(all_blocks_of(this->peers())),
      shared_heads_(find_shared_heads()),
      partitioner_(blocks_of_peers(),
                   config.max_sequences,
                   config.block_size,
                   shared_heads_.count() > 0 ? Audience::kAll : Audience::kHolders),
      batches_(static_cast<size_t>(config.rotation.num_micro_batches)) {
  if (shared_heads_.count() > 0) {
    check_partials(config_, this->peers().size());
    place_sinks();
  }
  const bool takes_turns = config_.rotation.stride() > 1;
  LAMINA_CHECK(!only_enqueues() || takes_turns == (neighbours_.after != nullptr));
  const std::vector<DeviceLink*> links = this->links();
  for (size_t i = 0; i < batches_.size(); ++i) {
    batches_[i].channel = links.front()->open_channel(
        links, {.idx = i, .stream = stream, .max_wait = config.max_wait});
  }
}

std::vector<DeviceLink*> DeviceAttention::links() const {
  std::vector<DeviceLink*> links;
  for (const AttentionPeer& peer : peers()) {
    LAMINA_CHECK(peer.endpoint->device_link() != nullptr, peer.name);
    links.push_back(peer.endpoint->device_link());
  }
  for (Endpoint* const neighbour : {neighbours_.before.get(), neighbours_.after.get()}) {
    if (neighbour != nullptr) links.push_back(neighbour->device_link());
  }
  return links;
}

void DeviceAttention::give_up() {
  for (const MicroBatch& each : batches_) each.channel->abort();
}

DeviceAttention::~DeviceAttention() {
  give_up();
  const Status ended = synchronize(stream_);
  if (!ended.ok()) log_error("ending offloaded attention: {}", ended.to_string());
}

// The least range: workers may have heads within it to themselves.
HeadRange DeviceAttention::find_shared_heads() const {
  HeadRange shared{};
  for (const AttentionPeer& peer : peers()) {
    if (!is_partial(peer)) continue;
    const HeadRange heads = query_heads(peer);
    shared = shared.count() == 0
                 ? heads
                 : HeadRange{std::min(shared.begin, heads.begin), std::max(shared.end, heads.end)};
  }
  return shared;
}

void DeviceAttention::place_sinks() {
  if (config_.sinks.empty()) return;
  std::vector<float> all;
  for (const std::vector<float>& layer : config_.sinks)
    all.insert(all.end(), layer.begin(), layer.end());
  LAMINA_CHECK_EQ(all.size(), config_.sinks.size() * static_cast<size_t>(config_.num_heads));
  sinks_ = Buffer(memory_of(stream_.device().kind), all.size() * sizeof(float));
  throw_if_error(copy(sinks_.data(), all.data(), sinks_.size_bytes(), stream_));
  throw_if_error(synchronize(stream_));
}

HeadRange DeviceAttention::query_heads(const AttentionPeer& peer) const {
  const int32_t group = config_.num_heads / config_.num_kv_heads;
  return {peer.kv_heads.begin * group, peer.kv_heads.end * group};
}

Status DeviceAttention::begin_step(int32_t micro_batch,
                                   const StepStart& start,
                                   const StepPlan& plan) {
  MicroBatch& step = batch(micro_batch);
  step.first_replica = start.first_replica;
  step.num_rows = start.num_rows;
  LAMINA_RETURN_IF_ERROR(partitioner_.partition(plan, micro_batch, step.parts));
  for (size_t i = 0; i < peers().size(); ++i) {
    count_bytes(i, step);
    if (step.first_replica != config_.replica_idx) continue;
    wire::AttentionPlan& part = step.parts[i].plan;
    part.num_padded_rows = static_cast<uint32_t>(start.num_rows);
    part.num_following = static_cast<uint32_t>(start.num_following);
    LAMINA_RETURN_IF_ERROR(send_plan(i, part, config_.epoch, config_.num_layers));
  }
  return num_slices(step, {0, config_.num_layers + 1}) == 0 ? end_step(step) : Status();
}

// Of those in the range, how many this replica runs.
int32_t DeviceAttention::num_slices(const MicroBatch& step, const SliceRange& range) const {
  const std::optional<int32_t> first =
      config_.rotation.next_slice(config_.replica_idx, step.first_replica, range.begin);
  if (!first || *first >= range.end) return 0;
  return (range.end - 1 - *first) / config_.rotation.stride() + 1;
}

// Whether nothing more is sent or received once that slice, which this replica runs, has ended.
bool DeviceAttention::is_last(const MicroBatch& step, int32_t slice_idx) const {
  return num_slices(step, {slice_idx + 1, config_.num_layers + 1}) == 0;
}

Status DeviceAttention::end_step(const MicroBatch& step) const {
  return step.channel->end_step(static_cast<uint32_t>(config_.num_layers));
}

// Of a step's tensors, which the device sends and receives.
void DeviceAttention::count_bytes(size_t peer_idx, const MicroBatch& step) {
  const AttentionPeer& peer = peers()[peer_idx];
  const int64_t num_heads = query_heads(peer).count();
  const int64_t key_width = (num_heads + peer.kv_heads.count()) * config_.head_dim;
  const int64_t value_width = config_.latent ? 0 : peer.kv_heads.count() * config_.value_dim;
  const int64_t num_sent = num_slices(step, {0, config_.num_layers});
  const int64_t num_received = num_slices(step, {1, config_.num_layers + 1});
  stats(peer_idx).bytes_sent +=
      static_cast<uint64_t>(num_sent * step.num_rows * (key_width + value_width)) *
      dtype_bytes(config_.dtype);
  stats(peer_idx).bytes_received +=
      static_cast<uint64_t>(num_received) * out_bytes(peer, step.num_rows);
}

// Of a layer's message from the peer.
size_t DeviceAttention::out_bytes(const AttentionPeer& peer, int64_t num_rows) const {
  const int64_t num_heads = num_rows * query_heads(peer).count();
  if (is_partial(peer)) {
    return partial_bytes(static_cast<uint32_t>(num_heads),
                         static_cast<uint32_t>(config_.value_dim));
  }
  return static_cast<size_t>(num_heads * config_.value_dim) * dtype_bytes(config_.dtype);
}

SlotIdx DeviceAttention::slot_of(DeviceMessage kind, int32_t micro_batch, int32_t layer) {
  return wire::device_slot_of(
      kind, static_cast<uint32_t>(micro_batch), static_cast<uint32_t>(layer));
}

Status DeviceAttention::add_q(DeviceTransfers& transfers,
                              int32_t micro_batch,
                              int32_t layer) const {
  const TensorView& q = batches_[static_cast<size_t>(micro_batch)].q;
  const SlotIdx slot = slot_of(DeviceMessage::kQ, micro_batch, layer);
  for (size_t i = 0; i < peers().size(); ++i) {
    const HeadRange heads = query_heads(peers()[i]);
    LAMINA_RETURN_IF_ERROR(transfers.add(i, slot, q.columns(heads.begin, heads.count())));
  }
  return {};
}

Status DeviceAttention::send_q(int32_t micro_batch, int32_t attention_idx, TensorView q) {
  MicroBatch& step = batch(micro_batch);
  step.q = q;
  if (!config_.overlap) return {};
  DeviceTransfers transfers(DeviceTransfers::Direction::kSend, *step.channel, attention_idx);
  LAMINA_RETURN_IF_ERROR(add_q(transfers, micro_batch, attention_idx));
  return transfers.enqueue();
}

Status DeviceAttention::send_kv(int32_t micro_batch,
                                int32_t attention_idx,
                                TensorView k,
                                TensorView v) {
  const MicroBatch& step = batch(micro_batch);
  DeviceTransfers transfers(DeviceTransfers::Direction::kSend, *step.channel, attention_idx);
  if (!config_.overlap) LAMINA_RETURN_IF_ERROR(add_q(transfers, micro_batch, attention_idx));
  const SlotIdx k_slot = slot_of(DeviceMessage::kK, micro_batch, attention_idx);
  const SlotIdx v_slot = slot_of(DeviceMessage::kV, micro_batch, attention_idx);
  for (size_t i = 0; i < peers().size(); ++i) {
    const HeadRange heads = peers()[i].kv_heads;
    LAMINA_RETURN_IF_ERROR(transfers.add(i, k_slot, k.columns(heads.begin, heads.count())));
    if (config_.latent) continue;
    LAMINA_RETURN_IF_ERROR(transfers.add(i, v_slot, v.columns(heads.begin, heads.count())));
  }
  LAMINA_RETURN_IF_ERROR(transfers.enqueue());
  const bool is_handed_on = neighbours_.after != nullptr;
  return !is_handed_on && is_last(step, attention_idx) ? end_step(step) : Status();
}

Status DeviceAttention::receive(int32_t micro_batch, int32_t attention_idx, TensorView out) {
  const MicroBatch& step = batch(micro_batch);
  const SlotIdx slot = slot_of(DeviceMessage::kOut, micro_batch, attention_idx);
  Status received = receive_whole(step, slot, attention_idx, out);
  if (received.ok()) received = receive_merged(step, slot, attention_idx, out);
  LAMINA_RETURN_IF_ERROR(or_reason(step, received));
  return attention_idx + 1 == config_.num_layers ? end_step(step) : Status();
}

Status DeviceAttention::receive_whole(const MicroBatch& step,
                                      SlotIdx slot,
                                      int32_t layer,
                                      TensorView out) const {
  DeviceTransfers transfers(DeviceTransfers::Direction::kReceive, *step.channel, layer);
  for (size_t i = 0; i < peers().size(); ++i) {
    if (is_partial(peers()[i])) continue;
    const HeadRange heads = query_heads(peers()[i]);
    LAMINA_RETURN_IF_ERROR(transfers.add(i, slot, out.columns(heads.begin, heads.count())));
  }
  return transfers.enqueue();
}

// Of the shared heads; null for none.
const float* DeviceAttention::sinks_of(int32_t layer) const {
  if (sinks_.size_bytes() == 0) return nullptr;
  return reinterpret_cast<const float*>(sinks_.data()) +
         static_cast<ptrdiff_t>(layer) * config_.num_heads + shared_heads_.begin;
}

Status DeviceAttention::receive_merged(const MicroBatch& step,
                                       SlotIdx slot,
                                       int32_t layer,
                                       TensorView out) const {
  const HeadRange shared = shared_heads_;
  if (shared.count() == 0) return {};
  std::vector<DevicePartial> partials;
  for (size_t i = 0; i < peers().size(); ++i) {
    if (!is_partial(peers()[i])) continue;
    const HeadRange heads = query_heads(peers()[i]);
    partials.push_back({.link_idx = i,
                        .slot = slot,
                        .head_begin = static_cast<uint32_t>(heads.begin - shared.begin),
                        .head_end = static_cast<uint32_t>(heads.end - shared.begin)});
  }
  return step.channel->receive_merged({.partials = partials,
                                       .use = static_cast<uint32_t>(layer) + 1,
                                       .num_tokens = static_cast<uint32_t>(step.num_rows),
                                       .num_heads = static_cast<uint32_t>(shared.count()),
                                       .head_dim = static_cast<uint32_t>(config_.value_dim),
                                       .sinks = sinks_of(layer),
                                       .out = out.columns(shared.begin, shared.count()).data,
                                       .out_stride = static_cast<uint32_t>(out.row_stride),
                                       .out_is_bf16 = out.dtype == DType::kBF16});
}

// Whoever may want this core gets it: the caller asks again at once.
Result<bool> DeviceAttention::has_output(int32_t micro_batch, int32_t attention_idx) {
  if (is_on_gpu()) return true;
  const MicroBatch& step = batch(micro_batch);
  LAMINA_RETURN_IF_ERROR(failure_of(step));
  const SlotIdx slot = slot_of(DeviceMessage::kOut, micro_batch, attention_idx);
  for (size_t i = 0; i < peers().size(); ++i) {
    const DeviceTransfer out = {
        .link_idx = i,
        .slot = slot,
        .rows = {.num_rows = 1, .row_bytes = out_bytes(peers()[i], step.num_rows)},
        .use = static_cast<uint32_t>(attention_idx) + 1};
    if (step.channel->has_begun(out)) continue;
    if (step.channel->is_aborted()) return unavailable("an attention worker is gone");
    cuda_p2p::pause_after(num_vain_looks_++);
    return false;
  }
  num_vain_looks_ = 0;
  return true;
}

std::optional<uint64_t> DeviceAttention::launch_shape(int32_t /*micro_batch*/) const {
  return only_enqueues() ? std::optional<uint64_t>(0) : std::nullopt;
}

// ---- carried values ----

// They are counted as what their sender's slice sends to attention.
Status DeviceAttention::receive_carried(int32_t micro_batch,
                                        int32_t slice_idx,
                                        std::span<const TensorView> values) {
  const MicroBatch& step = batch(micro_batch);
  DeviceTransfers transfers(DeviceTransfers::Direction::kReceive, *step.channel, slice_idx - 1);
  const size_t link_of_before = peers().size();
  for (size_t i = 0; i < values.size(); ++i) {
    LAMINA_RETURN_IF_ERROR(
        transfers.add(link_of_before, neighbours_.slots.slot_of(micro_batch, i), values[i]));
  }
  return or_reason(step, transfers.enqueue());
}

Status DeviceAttention::send_carried(int32_t micro_batch,
                                     int32_t slice_idx,
                                     std::span<const TensorView> values) {
  const MicroBatch& step = batch(micro_batch);
  DeviceTransfers transfers(DeviceTransfers::Direction::kSend, *step.channel, slice_idx);
  const size_t link_of_after = peers().size() + 1;
  for (size_t i = 0; i < values.size(); ++i) {
    LAMINA_RETURN_IF_ERROR(
        transfers.add(link_of_after, neighbours_.slots.slot_of(micro_batch, i), values[i]));
  }
  LAMINA_RETURN_IF_ERROR(transfers.enqueue());
  return is_last(step, slice_idx) ? end_step(step) : Status();
}

// What ended the step's waits, if anything did: a channel does not know who its peers are.
Status DeviceAttention::failure_of(const MicroBatch& step) {
  const Status status = step.channel->status();
  if (status.ok()) return {};
  return {status.code(), fmt::format("an attention worker or replica: {}", status.message())};
}

// A CPU's receive() fails by itself, and the channel knows why.
Status DeviceAttention::or_reason(const MicroBatch& step, const Status& received) {
  if (received.ok()) return {};
  const Status reason = failure_of(step);
  return reason.ok() ? received : reason;
}

// A wait that had no need to look further may not have seen that a peer is gone.
Status DeviceAttention::check_received() const {
  for (const MicroBatch& each : batches_) {
    LAMINA_RETURN_IF_ERROR(failure_of(each));
    if (each.channel->is_aborted()) return unavailable("an attention worker or replica is gone");
  }
  return {};
}

}  // namespace lamina
