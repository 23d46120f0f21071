#include "worker/device_attention_worker.h"

#include <algorithm>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/log.h"
#include "transport/cuda_p2p/poll_pace.h"
#include "wire/slots.h"
#include "worker/device_transfers.h"

namespace lamina {

using wire::DeviceMessage;

namespace {

// As long as a model worker may take from a plan to its first q, and for a slice: kernels are
// loaded and captured meanwhile. That it has died is noticed by its socket.
constexpr Duration kMaxWait = std::chrono::seconds(60);

void check_config(const AttentionWorkerConfig& config) {
  const KvLayout& kv = config.core.kv;
  const size_t element_bytes = dtype_bytes(config.dtype);
  const auto row_bytes = [&](int32_t num_heads, int32_t width) {
    return static_cast<size_t>(num_heads) * static_cast<size_t>(width) * element_bytes;
  };
  throw_if_error(check_message_rows("q", row_bytes(config.core.num_heads, kv.head_dim)));
  throw_if_error(check_message_rows("k", row_bytes(kv.num_kv_heads, kv.head_dim)));
  throw_if_error(check_message_rows("v", row_bytes(kv.num_kv_heads, kv.value_dim)));
  throw_if_error(check_message_rows("out", row_bytes(config.core.num_heads, kv.value_dim)));
}

AttentionWorkerConfig checked(const AttentionWorkerConfig& config) {
  check_config(config);
  AttentionWorkerConfig ours = config;
  ours.core.shares_heads = config.total_blocks > config.core.num_blocks;
  return ours;
}

std::unique_ptr<GpuStream> make_gpu_stream(Device device) {
  return device.kind == DeviceKind::kCpu ? nullptr : std::make_unique<GpuStream>(device);
}

}  // namespace

DeviceAttentionWorker::DeviceAttentionWorker(const AttentionWorkerConfig& config,
                                             std::vector<Endpoint*> replicas,
                                             StreamView stream)
    : config_(checked(config)),
      rotation_{config.core.num_micro_batches, config.num_replicas},
      replicas_(std::move(replicas)),
      gpu_stream_(make_gpu_stream(stream.device())),
      stream_(is_on_gpu() ? gpu_stream_->view() : stream),
      core_(config_.core, stream_),
      plans_(config_.plans(), replicas_),
      batches_(static_cast<size_t>(config_.core.num_micro_batches)) {
  make_batches();
}

void DeviceAttentionWorker::make_batches() {
  const KvLayout& kv = config_.core.kv;
  std::vector<DeviceLink*> links;
  for (Endpoint* const replica : replicas_) links.push_back(replica->device_link());
  for (size_t i = 0; i < batches_.size(); ++i) {
    MicroBatch& each = batches_[i];
    each.channel = links.front()->open_channel(links,
                                               {.idx = i,
                                                .stream = stream_,
                                                .max_wait = kMaxWait,
                                                .is_packed = true,
                                                .shares_device = true});
    each.q = for_rows(int64_t{config_.core.num_heads} * kv.head_dim);
    each.k = for_rows(int64_t{kv.num_kv_heads} * kv.head_dim);
    each.v = for_rows(int64_t{kv.num_kv_heads} * kv.value_dim);
    each.out = {memory_of(stream_.device().kind), out_bytes(config_.core.max_tokens)};
  }
}

DeviceAttentionWorker::~DeviceAttentionWorker() {
  for (const MicroBatch& each : batches_) each.channel->abort();
  const Status ended = synchronize(stream_);
  if (!ended.ok()) log_error("ending an attention worker's session: {}", ended.to_string());
}

Buffer DeviceAttentionWorker::for_rows(int64_t width) const {
  return {memory_of(stream_.device().kind),
          static_cast<size_t>(config_.core.max_tokens * width) * dtype_bytes(config_.dtype)};
}

// Of a layer's message. Where heads are shared: out in f32, then its lse.
size_t DeviceAttentionWorker::out_bytes(int64_t num_rows) const {
  const int64_t num_heads = num_rows * config_.core.num_heads;
  const int64_t value_dim = config_.core.kv.value_dim;
  if (config_.core.shares_heads) {
    const size_t size_bytes =
        partial_bytes(static_cast<uint32_t>(num_heads), static_cast<uint32_t>(value_dim));
    return round_up(size_bytes, kDeviceRowAlignment);
  }
  return static_cast<size_t>(num_heads * value_dim) * dtype_bytes(config_.dtype);
}

void DeviceAttentionWorker::add_awaited(std::vector<AwaitedMessage>& awaited) const {
  for (uint32_t i = 0; i < batches_.size(); ++i) plans_.add_awaited(i, awaited);
}

// An error is the session's end: the model's devices, which wait for us, are told at once.
Result<bool> DeviceAttentionWorker::step() {
  const auto run = [&]() -> Result<bool> {
    LAMINA_RETURN_IF_ERROR(check_waits());
    for (uint32_t i = 0; i < batches_.size(); ++i) {
      LAMINA_ASSIGN_OR_RETURN(const bool began, begin_step(i));
      if (began) return true;
    }
    return is_on_gpu() ? end_steps() : run_next_layer();
  };
  Result<bool> did_something = run();
  if (did_something.ok()) return did_something;
  for (Endpoint* const replica : replicas_) replica->abort();
  return did_something;
}

// An abort ends waits that are under way; who only looks whether a message is there sees it here.
Status DeviceAttentionWorker::check_waits() const {
  for (const MicroBatch& each : batches_) {
    LAMINA_RETURN_IF_ERROR(each.channel->status());
    if (!is_on_gpu() && each.channel->is_aborted()) return unavailable("a model replica is gone");
  }
  return {};
}

// ---- the CPU's layers ----

// There is nothing to sleep on: while steps are under way the caller comes back.
Result<bool> DeviceAttentionWorker::run_next_layer() {
  const auto count = static_cast<uint32_t>(batches_.size());
  bool is_under_way = false;
  for (uint32_t i = 0; i < count; ++i) {
    MicroBatch& step = batch(i);
    is_under_way |= step.is_under_way;
    if (!step.is_under_way || !has_begun(i)) continue;
    num_vain_looks_ = 0;
    const TimePoint begin = steady_clock().now();
    LAMINA_RETURN_IF_ERROR(run_layer(i, step.next_layer));
    stats_.last_progress_ns = steady_clock().now().time_since_epoch().count();
    stats_.attention_ns += (steady_clock().now() - begin).count();
    if (++step.next_layer < config_.core.kv.num_layers) return true;
    LAMINA_RETURN_IF_ERROR(end_layers(i));
    end_step(step);
    return true;
  }
  if (is_under_way) cuda_p2p::pause_after(num_vain_looks_++);
  return is_under_way;
}

size_t DeviceAttentionWorker::link_of(const MicroBatch& step, int32_t slice_idx) const {
  return static_cast<size_t>(rotation_.replica_of(step.first_replica, slice_idx));
}

bool DeviceAttentionWorker::has_begun(uint32_t micro_batch) const {
  const MicroBatch& step = batches_[micro_batch];
  const auto layer = static_cast<uint32_t>(step.next_layer);
  const int64_t width = int64_t{config_.core.num_heads} * config_.core.kv.head_dim;
  return step.channel->has_begun(
      {.link_idx = link_of(step, step.next_layer),
       .slot = wire::device_slot_of(DeviceMessage::kQ, micro_batch, layer),
       .rows = {.num_rows = static_cast<size_t>(step.num_rows),
                .row_bytes = static_cast<size_t>(width) * dtype_bytes(config_.dtype)},
       .use = layer + 1});
}

// ---- steps ----

// Of the group that was enqueued last: those before had ended when it began.
Result<bool> DeviceAttentionWorker::end_steps() {
  if (!group_.empty() || has_pending_work(stream_)) return false;
  bool has_ended = false;
  for (MicroBatch& each : batches_) {
    if (!each.is_under_way) continue;
    end_step(each);
    has_ended = true;
  }
  return has_ended;
}

void DeviceAttentionWorker::end_step(MicroBatch& batch) {
  batch.is_under_way = false;
  ++stats_.num_steps;
  stats_.num_tokens += static_cast<uint64_t>(batch.num_tokens);
  stats_.last_progress_ns = steady_clock().now().time_since_epoch().count();
  stats_.is_in_step =
      std::ranges::any_of(batches_, [](const MicroBatch& each) { return each.is_under_way; });
}

// The next plan is sent when all outputs of the step before have come.
Result<bool> DeviceAttentionWorker::begin_step(uint32_t micro_batch) {
  LAMINA_ASSIGN_OR_RETURN(const auto plan, plans_.find(micro_batch));
  if (!plan) return false;
  if (std::ranges::find(group_, micro_batch) != group_.end()) {
    return invalid_argument("a group of plans has two of a micro-batch");
  }
  if (batch(micro_batch).is_under_way) end_step(batch(micro_batch));
  LAMINA_RETURN_IF_ERROR(begin_step(micro_batch, *plan));
  return true;
}

Status DeviceAttentionWorker::begin_step(uint32_t micro_batch, const PlanReceiver::Arrival& plan) {
  stats_.bytes_received += plan.message.size();
  LAMINA_RETURN_IF_ERROR(plans_.take(micro_batch, plan.message, plan_));
  LAMINA_RETURN_IF_ERROR(core_.begin_step(plan_));
  const auto idx = static_cast<int32_t>(micro_batch);
  MicroBatch& step = batch(micro_batch);
  step.first_replica = plan.replica;
  step.num_tokens = core_.num_tokens(idx);
  step.num_rows = std::max<int64_t>(plan_.num_padded_rows, step.num_tokens);
  step.is_decoding = step.num_tokens == static_cast<int32_t>(plan_.sequences.size());
  if (core_.is_partial(idx) != config_.core.shares_heads) {
    return invalid_argument("a plan names blocks of others, who have none");
  }
  step.is_under_way = true;
  count_bytes(step.num_rows);
  stats_.num_blocks_used = core_.num_blocks_used();
  stats_.last_progress_ns = steady_clock().now().time_since_epoch().count();
  stats_.is_in_step = true;
  if (!is_on_gpu()) {
    step.next_layer = 0;
    return {};
  }
  group_.push_back(micro_batch);
  return plan_.num_following == 0 ? run_group() : Status();
}

// Of a step's tensors, which the device receives and sends.
void DeviceAttentionWorker::count_bytes(int64_t num_rows) {
  const KvLayout& kv = config_.core.kv;
  const int64_t num_heads = config_.core.num_heads;
  const int64_t key_width = (num_heads + kv.num_kv_heads) * kv.head_dim;
  const int64_t value_width = kv.latent ? 0 : int64_t{kv.num_kv_heads} * kv.value_dim;
  const auto bytes = [&](int64_t width) {
    return static_cast<uint64_t>(num_rows * kv.num_layers * width) * dtype_bytes(config_.dtype);
  };
  stats_.bytes_received += bytes(key_width + value_width);
  stats_.bytes_sent += static_cast<uint64_t>(kv.num_layers) * out_bytes(num_rows);
}

Status DeviceAttentionWorker::run_group() {
  std::ranges::sort(group_);
  const std::optional<SliceGraphs::Key> key = key_of_group();
  const Status enqueued =
      key ? graphs_.run(*key, stream_, [&] { return run_layers(); }) : run_layers();
  group_.clear();
  return enqueued;
}

// Of one graph with all of the group, if there may be one.
std::optional<SliceGraphs::Key> DeviceAttentionWorker::key_of_group() const {
  SliceGraphs::Key key;
  for (const uint32_t i : group_) {
    const auto idx = static_cast<int32_t>(i);
    const std::optional<uint64_t> shape = core_.launch_shape(idx);
    if (!shape || !batches_[i].is_decoding) return std::nullopt;
    key.parts.push_back({.micro_batch = idx,
                         .first_replica = batches_[i].first_replica,
                         .num_rows = batches_[i].num_rows,
                         .launch_shape = *shape});
  }
  return key;
}

Status DeviceAttentionWorker::run_layers() {
  const int32_t num_layers = config_.core.kv.num_layers;
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    for (const uint32_t i : group_) LAMINA_RETURN_IF_ERROR(run_layer(i, layer));
  }
  for (const uint32_t i : group_) LAMINA_RETURN_IF_ERROR(end_layers(i));
  return {};
}

Status DeviceAttentionWorker::end_layers(uint32_t micro_batch) {
  return batch(micro_batch).channel->end_step(static_cast<uint32_t>(config_.core.kv.num_layers));
}

DeviceAttentionWorker::Output DeviceAttentionWorker::output_of(const MicroBatch& step) const {
  const int32_t num_heads = config_.core.num_heads;
  const Shape shape = {step.num_rows, num_heads, config_.core.kv.value_dim};
  std::byte* const data = step.out.data();
  if (!config_.core.shares_heads) {
    const TensorView rows(data, config_.dtype, shape);
    return {.rows = rows, .lse = {}, .message = rows};
  }
  const TensorView rows(data, DType::kF32, shape);
  return {
      .rows = rows,
      .lse = {data + rows.size_bytes(), DType::kF32, {step.num_rows, num_heads}},
      .message = {
          data, DType::kF32, {1, static_cast<int64_t>(out_bytes(step.num_rows) / sizeof(float))}}};
}

Status DeviceAttentionWorker::run_layer(uint32_t micro_batch, int32_t layer) {
  const auto idx = static_cast<int32_t>(micro_batch);
  const MicroBatch& step = batch(micro_batch);
  const KvLayout& kv = config_.core.kv;
  const size_t from = link_of(step, layer);
  const auto slot_of = [&](DeviceMessage kind) {
    return wire::device_slot_of(kind, micro_batch, static_cast<uint32_t>(layer));
  };
  // In the message itself where that can be.
  const auto place = [&](DeviceMessage kind, const Buffer& memory, int64_t heads, int64_t dim) {
    TensorView rows(memory.data(), config_.dtype, {step.num_rows, heads, dim});
    std::byte* const there = step.channel->place_of(from, slot_of(kind), rows.size_bytes());
    if (there != nullptr) rows.data = there;
    return rows;
  };
  const TensorView q = place(DeviceMessage::kQ, step.q, config_.core.num_heads, kv.head_dim);
  const TensorView k = place(DeviceMessage::kK, step.k, kv.num_kv_heads, kv.head_dim);
  const TensorView v = place(DeviceMessage::kV, step.v, kv.num_kv_heads, kv.value_dim);
  // A GPU's operators are told of padding by the step's tables, a CPU's by what they are given.
  const auto given = [&](const TensorView& rows) {
    return is_on_gpu() ? rows : rows.rows(0, step.num_tokens);
  };
  DeviceTransfers in(DeviceTransfers::Direction::kReceive, *step.channel, layer);
  LAMINA_RETURN_IF_ERROR(in.add(from, slot_of(DeviceMessage::kQ), q));
  if (config_.core.overlap) {
    LAMINA_RETURN_IF_ERROR(in.enqueue());
    LAMINA_RETURN_IF_ERROR(core_.start(idx, layer, given(q)));
  }
  LAMINA_RETURN_IF_ERROR(in.add(from, slot_of(DeviceMessage::kK), k));
  if (!kv.latent) LAMINA_RETURN_IF_ERROR(in.add(from, slot_of(DeviceMessage::kV), v));
  LAMINA_RETURN_IF_ERROR(in.enqueue());
  LAMINA_RETURN_IF_ERROR(core_.append(idx, layer, given(k), given(v)));
  const Output out = output_of(step);
  LAMINA_RETURN_IF_ERROR(core_.attend(
      idx, layer, given(q), given(out.rows), out.lse.empty() ? out.lse : given(out.lse)));
  DeviceTransfers back(DeviceTransfers::Direction::kSend, *step.channel, layer);
  LAMINA_RETURN_IF_ERROR(
      back.add(link_of(step, layer + 1), slot_of(DeviceMessage::kOut), out.message));
  return back.enqueue();
}

}  // namespace lamina
