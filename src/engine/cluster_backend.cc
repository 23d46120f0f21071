#include "engine/cluster_backend.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "base/check.h"
#include "base/error.h"
#include "base/host.h"
#include "base/log.h"
#include "control/attention_control_client.h"
#include "engine/replica_links.h"
#include "wire/slots.h"

namespace lamina {
namespace {

uint64_t random_id() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

constexpr Duration kStartPollInterval = std::chrono::milliseconds(50);
constexpr Duration kMinExclusion = std::chrono::seconds(1);
constexpr Duration kMaxExclusion = std::chrono::seconds(60);

// An answer that asking again will not change.
bool is_refusal(const Status& status) {
  return status.code() == StatusCode::kUnauthenticated ||
         status.code() == StatusCode::kPermissionDenied ||
         status.code() == StatusCode::kFailedPrecondition;
}

}  // namespace

ClusterBackend::ClusterBackend(ClusterBackendConfig config,
                               const ModelProgram& program,
                               std::span<const StreamView> streams)
    : config_(std::move(config)),
      program_(program),
      streams_(streams.begin(), streams.end()),
      replicas_(program, streams, config_.trace),
      engine_id_(random_id()),
      candidates_(config_.workers.size()) {
  LAMINA_CHECK(!config_.workers.empty());
  for (const StreamView& stream : streams_) {
    LAMINA_CHECK(stream.device().kind == DeviceKind::kCpu || config_.host_stream);
  }
  std::vector<control::AttentionControl*> workers;
  for (const control::ControlAddress& address : config_.workers) {
    clients_.push_back(
        std::make_unique<control::AttentionControlClient>(address, config_.security));
    workers.push_back(clients_.back().get());
    if (config_.trace != nullptr) {
      trace_rows_.push_back(config_.trace->add_row("attention workers", address.to_string()));
    }
  }
  monitor_ = std::make_unique<control::WorkerMonitor>(
      config_.monitor, workers, static_cast<control::WorkerListener&>(*this));
}

ClusterBackend::~ClusterBackend() {
  close();
}

// ---- the monitor's threads ----

void ClusterBackend::worker_available(size_t worker_idx, const control::WorkerInfo& info) {
  const std::lock_guard lock(mutex_);
  Candidate& candidate = candidates_[worker_idx];
  const bool is_new = !candidate.info || candidate.info->incarnation != info.incarnation;
  if (is_new) candidate.exclusion = {};
  candidate.info = info;
  changed_.notify_all();
  if (wake_) wake_();
}

void ClusterBackend::worker_down(size_t worker_idx, const control::WorkerDown& down) {
  const std::lock_guard lock(mutex_);
  if (down.epoch != epoch_) return;
  candidates_[worker_idx].info.reset();
  lost_ = unavailable(fmt::format("attention worker {} was lost ({}: {})",
                                  clients_[worker_idx]->name(),
                                  control::down_cause_name(down.cause),
                                  down.reason));
  for (const auto& remote : remote_) remote->abort();
  if (wake_) wake_();
}

// ---- the engine's thread ----

void ClusterBackend::on_event(std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
}

BackendEvent ClusterBackend::poll_event() {
  const std::lock_guard lock(mutex_);
  if (lost_) return BackendEvent::kLost;
  if (!replicas_.is_open()) return BackendEvent::kNone;
  const bool is_better = num_useful(num_usable()) > num_useful(num_considered_);
  return is_better ? BackendEvent::kRebalance : BackendEvent::kNone;
}

Status ClusterBackend::loss_reason() const {
  const std::lock_guard lock(mutex_);
  return lost_.value_or(Status());
}

Status ClusterBackend::start(int32_t micro_batch, StepPlan plan) {
  const Status started = replicas_.start(micro_batch, std::move(plan));
  return started.ok() ? started : lose_session(started);
}

Result<std::optional<FinishedStep>> ClusterBackend::wait(Deadline deadline) {
  Result<std::optional<FinishedStep>> finished = replicas_.wait(deadline);
  if (finished.ok()) return finished;
  return lose_session(finished.status());
}

// What the heartbeats found says more than what a step ended with.
Status ClusterBackend::lose_session(const Status& status) {
  const Status reason = loss_reason();
  close_session();
  return reason.ok() ? status : reason;
}

Result<BlockLanes> ClusterBackend::open_session(int32_t min_blocks) {
  if (was_open_) return try_session(min_blocks);
  wait_for_all_workers();
  // A worker may still be leased to an engine that died a moment ago: that passes.
  const Deadline deadline = Deadline::after(config_.start_timeout);
  while (true) {
    Result<BlockLanes> blocks = try_session(min_blocks);
    const StatusCode code = blocks.status().code();
    const bool may_pass = code == StatusCode::kUnavailable || code == StatusCode::kAlreadyExists ||
                          code == StatusCode::kDeadlineExceeded;
    if (!may_pass || nobody_will_come() || deadline.has_passed()) return blocks;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kStartPollInterval);
  }
}

Result<BlockLanes> ClusterBackend::try_session(int32_t min_blocks) {
  close_session();
  LAMINA_ASSIGN_OR_RETURN(const SessionPlan plan, plan_session(min_blocks));
  num_considered_ = plan.num_usable;
  {
    const std::lock_guard lock(mutex_);
    ++epoch_;
  }
  RankPeers peers(program_.ranks.size() * static_cast<size_t>(program_.rotation.num_replicas));
  for (const Member& member : plan.members) {
    const Status joined = join(member, plan.planned.partition.num_blocks, peers);
    members_.push_back(member);
    if (!joined.ok()) {
      exclude(member.worker_idx);
      close_session();
      return Status(
          joined.code(),
          fmt::format(
              "attention worker {}: {}", clients_[member.worker_idx]->name(), joined.message()));
    }
    // At once: its lease must not run out while the others join.
    monitor_->watch(member.worker_idx, epoch_, member.incarnation);
  }
  LAMINA_RETURN_IF_ERROR(publish(plan.planned, std::move(peers)));
  log_session(plan);
  return plan.planned.lanes;
}

void ClusterBackend::log_session(const SessionPlan& plan) const {
  const KvPartition& partition = plan.planned.partition;
  log_info("session {}: {} attention workers by {}, {} KV blocks of {} tokens: {}",
           epoch_,
           members_.size(),
           partition_name(plan.planned.kind),
           partition.num_blocks,
           program_.block_size,
           partition.to_string());
  if (plan.num_usable > members_.size()) {
    log_warning("{} attention workers stand by: the partition has no share for them",
                plan.num_usable - members_.size());
  }
}

std::unique_ptr<OffloadedBackend> ClusterBackend::make_device_attention(
    size_t idx, std::vector<AttentionPeer> peers, DeviceNeighbours neighbours) {
  const AttentionAttrs& attention = program_.attention();
  const bool overlap = std::ranges::any_of(
      members_, [this](const Member& member) { return overlaps(member.worker_idx); });
  return std::make_unique<DeviceAttention>(
      DeviceAttentionConfig{
          .epoch = epoch_,
          .num_layers = program_.num_layers(),
          .num_heads = attention.num_heads,
          .num_kv_heads = attention.num_kv_heads,
          .head_dim = attention.head_dim,
          .value_dim = attention.value_dim,
          .latent = attention.latent,
          .dtype = program_.dtype,
          .overlap = overlap,
          .block_size = program_.block_size,
          .max_sequences = program_.max_num_seqs,
          .rotation = program_.rotation,
          .replica_idx = static_cast<int32_t>(idx / program_.ranks.size()),
          .sinks = program_.sinks(static_cast<int32_t>(idx % program_.ranks.size()))},
      std::move(peers),
      streams_[idx],
      std::move(neighbours));
}

std::unique_ptr<OffloadedBackend> ClusterBackend::make_remote(size_t idx,
                                                              std::vector<AttentionPeer> peers) {
  const AttentionAttrs& attention = program_.attention();
  const size_t num_ranks = program_.ranks.size();
  std::vector<TraceRow> trace_rows;
  if (config_.trace != nullptr) {
    for (const AttentionPeer& peer : peers) trace_rows.push_back(trace_rows_[peer.worker_idx]);
  }
  return std::make_unique<RemoteAttention>(
      RemoteAttentionConfig{.epoch = epoch_,
                            .num_layers = program_.num_layers(),
                            .num_heads = attention.num_heads,
                            .num_kv_heads = attention.num_kv_heads,
                            .value_dim = attention.value_dim,
                            .latent = attention.latent,
                            .dtype = program_.dtype,
                            .block_size = program_.block_size,
                            .max_sequences = program_.max_num_seqs,
                            .max_tokens = program_.max_num_batched_tokens,
                            .rotation = program_.rotation,
                            .replica_idx = static_cast<int32_t>(idx / num_ranks),
                            .sinks = program_.sinks(static_cast<int32_t>(idx % num_ranks)),
                            .reply_timeout = config_.reply_timeout,
                            .wait = {},
                            .meter = &replicas_.meter(),
                            .trace = config_.trace,
                            .trace_rows = std::move(trace_rows),
                            .trace_replicas = replicas_.trace_rows()},
      std::move(peers),
      streams_[idx].device().kind == DeviceKind::kCpu ? streams_[idx] : *config_.host_stream);
}

// `remote` as a model worker on `stream` talks to it.
AttentionBackend* ClusterBackend::stage(OffloadedBackend& remote, StreamView stream) {
  if (stream.device().kind == DeviceKind::kCpu || uses_devices()) return &remote;
  staged_.push_back(
      std::make_unique<StagedAttention>(remote, program_.max_num_batched_tokens, stream));
  return staged_.back().get();
}

// Makes the joined peers the session, unless one of them was lost meanwhile.
Status ClusterBackend::publish(const PlannedPartition& planned, RankPeers peers) try {
  std::vector<DeviceNeighbours> neighbours(peers.size());
  if (uses_devices() && is_on_gpu()) neighbours = connect_devices(program_, streams_, epoch_);
  std::vector<std::unique_ptr<OffloadedBackend>> remote;
  for (size_t i = 0; i < peers.size(); ++i) {
    remote.push_back(uses_devices()
                         ? make_device_attention(i, std::move(peers[i]), std::move(neighbours[i]))
                         : make_remote(i, std::move(peers[i])));
  }
  std::vector<std::vector<AttentionBackend*>> attention(
      static_cast<size_t>(program_.rotation.num_replicas));
  for (size_t i = 0; i < remote.size(); ++i) {
    attention[i / program_.ranks.size()].push_back(stage(*remote[i], streams_[i]));
  }
  Status lost;
  {
    const std::lock_guard lock(mutex_);
    lost = lost_.value_or(Status());
    if (lost.ok()) {
      remote_ = std::move(remote);
      for (const Member& member : members_) candidates_[member.worker_idx].exclusion = {};
    }
  }
  if (!lost.ok()) {
    close_session();
    return lost;
  }
  replicas_.open(epoch_, planned.partition.num_blocks, attention);
  was_open_ = true;
  return {};
} catch (const Error& error) {
  close_session();
  return error.status();
}

// Until each worker answers, has refused us for good (another secret, another version), or the time
// is up.
void ClusterBackend::wait_for_all_workers() {
  const Deadline deadline = Deadline::after(config_.start_timeout);
  std::unique_lock lock(mutex_);
  while (!deadline.has_passed()) {
    size_t num_settled = 0;
    for (size_t i = 0; i < candidates_.size(); ++i)
      num_settled += candidates_[i].info || has_refused(i) ? 1 : 0;
    if (num_settled == candidates_.size()) return;
    changed_.wait_for(lock, kStartPollInterval);
  }
}

bool ClusterBackend::has_refused(size_t worker_idx) const {
  return is_refusal(monitor_->snapshot(worker_idx).last_error);
}

bool ClusterBackend::nobody_will_come() const {
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (!has_refused(i)) return false;
  }
  return true;
}

bool ClusterBackend::is_usable(const Candidate& candidate) const {
  return candidate.info && steady_clock().now() >= candidate.exclusion.until;
}

size_t ClusterBackend::num_usable() const {
  return static_cast<size_t>(
      std::count_if(candidates_.begin(), candidates_.end(), [this](const Candidate& candidate) {
        return is_usable(candidate);
      }));
}

// Workers that a session makes use of, of so many.
size_t ClusterBackend::num_useful(size_t num_workers) const {
  const auto num_heads = static_cast<size_t>(program_.num_kv_heads());
  return config_.partition == PartitionKind::kHead ? std::min(num_workers, num_heads) : num_workers;
}

// Who takes part in the next session, with which share of the KV cache. A worker without room for
// its share is left out where others have it.
Result<ClusterBackend::SessionPlan> ClusterBackend::plan_session(int32_t min_blocks) {
  while (true) {
    SessionPlan plan;
    std::vector<Member> usable = usable_members();
    if (usable.empty()) return nobody_is_up();
    plan.num_usable = usable.size();
    const std::vector<PartitionWorker> workers = describe(usable);
    Result<PlannedPartition> planned =
        plan_partition({.kind = config_.partition,
                        .layout = program_.kv_layout(program_.num_kv_heads()),
                        .workers = workers,
                        .min_blocks = min_blocks,
                        .max_blocks = most_useful_blocks(program_)});
    if (planned.ok()) {
      plan.planned = *std::move(planned);
      for (const KvTile& tile : plan.planned.partition.tiles) {
        Member& member = usable[static_cast<size_t>(tile.worker_idx)];
        member.tiles.push_back(tile);
        member.share = plan.planned.partition.share_of(tile.worker_idx);
      }
      std::erase_if(usable, [](const Member& member) { return member.tiles.empty(); });
      plan.members = std::move(usable);
      return plan;
    }
    if (usable.size() == 1) return planned.status();
    log_warning("{}", planned.status().message());
    const auto poorest =
        std::min_element(workers.begin(), workers.end(), [](const auto& a, const auto& b) {
          return static_cast<double>(a.budget_bytes) / a.speed <
                 static_cast<double>(b.budget_bytes) / b.speed;
        });
    exclude(usable[static_cast<size_t>(poorest - workers.begin())].worker_idx);
  }
}

// Workers that can be used, in the order of the configuration, without shares.
std::vector<ClusterBackend::Member> ClusterBackend::usable_members() const {
  const std::lock_guard lock(mutex_);
  std::vector<Member> members;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (!is_usable(candidates_[i])) continue;
    members.push_back(
        {.worker_idx = i, .tiles = {}, .incarnation = candidates_[i].info->incarnation});
  }
  return members;
}

std::vector<PartitionWorker> ClusterBackend::describe(const std::vector<Member>& members) const {
  std::vector<PartitionWorker> workers;
  workers.reserve(members.size());
  const std::lock_guard lock(mutex_);
  for (const Member& member : members) {
    const std::optional<control::WorkerInfo>& info = candidates_[member.worker_idx].info;
    workers.push_back({.name = clients_[member.worker_idx]->name(),
                       .budget_bytes = info ? info->kv_memory_bytes : 0,
                       .speed = info ? info->kv_bytes_per_second : 0});
  }
  even_out_speeds(workers);
  return workers;
}

Status ClusterBackend::join(const Member& member, int32_t num_blocks, RankPeers& peers) {
  const Deadline deadline = Deadline::after(config_.call_timeout);
  control::SessionConfig session = session_config(member, num_blocks);
  const int32_t heads_of_rank = program_.attention().num_kv_heads;
  try {
    const auto num_replicas = static_cast<size_t>(program_.rotation.num_replicas);
    std::vector<std::unique_ptr<PendingEndpoint>> pending;  // part after part, by replica
    for (control::SessionPart& part : session.parts) {
      for (size_t replica = 0; replica < num_replicas; ++replica) {
        pending.push_back(
            prepare_endpoint(endpoint_config(session, part, member.worker_idx, replica)));
        part.transport_blobs.push_back(pending.back()->blob());
      }
    }
    LAMINA_ASSIGN_OR_RETURN(const std::vector<std::string> blobs,
                            clients_[member.worker_idx]->configure(session, config_.call_timeout));
    for (size_t i = 0; i < pending.size(); ++i) {
      const control::SessionPart& part = session.parts[i / num_replicas];
      const int32_t rank = part.kv_head_begin / heads_of_rank;
      const int32_t first = rank * heads_of_rank;
      const size_t replica = i % num_replicas;
      peers[replica * program_.ranks.size() + static_cast<size_t>(rank)].push_back(
          {.name = clients_[member.worker_idx]->name(),
           .worker_idx = member.worker_idx,
           .kv_heads = {part.kv_head_begin - first, part.kv_head_end - first},
           .blocks = {part.block_begin, part.block_end},
           .endpoint = pending[i]->complete(blobs[i], deadline)});
    }
    return {};
  } catch (const Error& error) {
    return error.status();
  } catch (const std::exception& error) {
    return internal_error(error.what());
  }
}

// Over hosts q leaves a GPU with k and v.
bool ClusterBackend::overlaps(size_t worker_idx) const {
  if (is_on_gpu() && !uses_devices()) return false;
  const std::lock_guard lock(mutex_);
  const std::optional<control::WorkerInfo>& info = candidates_[worker_idx].info;
  const bool on_gpu = info && info->device_name.starts_with("cuda");
  return config_.overlap.value_or(!on_gpu);
}

EndpointConfig ClusterBackend::endpoint_config(const control::SessionConfig& session,
                                               const control::SessionPart& part,
                                               size_t worker_idx,
                                               size_t replica) const {
  const wire::SlotGeometry geometry = control::slot_geometry(session, part);
  EndpointConfig config{.kind = session.transport,
                        .self = {.id = engine_id_, .epoch = epoch_},
                        .peer = {.id = worker_peer_id(part), .epoch = epoch_},
                        .receive_slots = wire::model_worker_slots(geometry),
                        .send_slots = wire::attention_worker_slots(geometry),
                        .listens = false,
                        .host = config_.workers[worker_idx].host};
  if (!uses_devices()) return config;
  const auto rank = static_cast<size_t>(part.kv_head_begin / program_.attention().num_kv_heads);
  config.device = streams_[replica * program_.ranks.size() + rank].device();
  config.num_device_channels = geometry.num_micro_batches;
  config.receive_slots = wire::model_worker_slots(wire::without_tensors(geometry));
  config.send_slots = wire::attention_worker_slots(wire::without_tensors(geometry));
  config.device_receive_slots = wire::model_device_slots(geometry);
  config.device_send_slots = wire::attention_device_slots(geometry);
  return config;
}

control::SessionConfig ClusterBackend::session_config(const Member& member,
                                                      int32_t num_blocks) const {
  control::SessionConfig session;
  session.epoch = epoch_;
  session.engine_id = engine_id_;
  session.engine_name = fmt::format("pid {}", ::getpid());
  session.model_fingerprint = program_.ranks.front().weights->fingerprint();
  session.num_layers = program_.num_layers();
  session.model_num_kv_heads = program_.num_kv_heads();
  session.head_dim = program_.attention().head_dim;
  session.value_dim = program_.attention().value_dim;
  session.latent = program_.attention().latent;
  session.block_size = program_.block_size;
  session.num_blocks = num_blocks;
  session.kv_dtype = program_.kv_dtype;
  session.wire_dtype = program_.dtype;
  session.out_dtype = program_.dtype;
  session.max_tokens = program_.max_num_batched_tokens;
  session.max_sequences = program_.max_num_seqs;
  session.max_blocks_per_sequence = program_.max_blocks_per_sequence();
  session.transport = transport_for(member.worker_idx);
  session.num_micro_batches = program_.rotation.num_micro_batches;
  session.num_replicas = program_.rotation.num_replicas;
  session.overlap = overlaps(member.worker_idx);
  for (const KvTile& tile : member.tiles) add_parts(tile, session);
  return session;
}

// A part for each rank that has heads of the tile.
void ClusterBackend::add_parts(const KvTile& tile, control::SessionConfig& session) const {
  const int32_t heads_of_rank = program_.attention().num_kv_heads;
  for (int32_t rank = 0; rank < program_.num_ranks(); ++rank) {
    const int32_t first = rank * heads_of_rank;
    const HeadRange heads = {std::max(tile.kv_heads.begin, first),
                             std::min(tile.kv_heads.end, first + heads_of_rank)};
    if (heads.begin >= heads.end) continue;
    AttentionCoreConfig core = program_.attention_core(
        rank, {heads.begin - first, heads.end - first}, tile.blocks.count());
    session.parts.push_back({.kv_head_begin = heads.begin,
                             .kv_head_end = heads.end,
                             .block_begin = tile.blocks.begin,
                             .block_end = tile.blocks.end,
                             .num_heads = core.num_heads,
                             .layers = std::move(core.layers),
                             .transport_blobs = {}});
  }
}

TransportKind ClusterBackend::transport_for(size_t worker_idx) const {
  if (config_.transport) return *config_.transport;
  return is_loopback_host(config_.workers[worker_idx].host) ? TransportKind::kShm
                                                            : TransportKind::kTcp;
}

// A worker that answers but cannot take part is left alone for a while, longer each time: every
// attempt costs the session that serves meanwhile.
void ClusterBackend::exclude(size_t worker_idx) {
  const std::lock_guard lock(mutex_);
  Exclusion& exclusion = candidates_[worker_idx].exclusion;
  exclusion.pause = std::clamp(2 * exclusion.pause, kMinExclusion, kMaxExclusion);
  exclusion.until = steady_clock().now() + exclusion.pause;
}

void ClusterBackend::close_session() {
  replicas_.close();
  staged_.clear();
  std::vector<std::unique_ptr<OffloadedBackend>> ended;
  {
    const std::lock_guard lock(mutex_);
    ended = std::exchange(remote_, {});
  }
  for (const Member& member : std::exchange(members_, {})) {
    bool is_up = false;
    {
      const std::lock_guard lock(mutex_);
      is_up = candidates_[member.worker_idx].info.has_value();
    }
    monitor_->unwatch(member.worker_idx);
    if (!is_up) continue;
    const Status status =
        clients_[member.worker_idx]->end_session(epoch_, config_.monitor.call_timeout);
    if (!status.ok()) log_warning("ending session {}: {}", epoch_, status.to_string());
  }
  ended.clear();  // after their sessions: a closed data connection would be a loss to them
  const std::lock_guard lock(mutex_);
  lost_.reset();  // after unwatch(): no later word on this session counts
}

void ClusterBackend::close() {
  close_session();
  monitor_->stop();
}

Status ClusterBackend::nobody_is_up() const {
  std::string text = "no attention worker answers";
  for (size_t i = 0; i < clients_.size(); ++i) {
    const control::WorkerSnapshot snapshot = monitor_->snapshot(i);
    text += fmt::format("; {}: {}",
                        clients_[i]->name(),
                        snapshot.last_error.ok() ? "not asked yet" : snapshot.last_error.message());
  }
  return unavailable(std::move(text));
}

std::vector<EngineStats::Worker> ClusterBackend::workers() const {
  std::vector<EngineStats::Worker> workers;
  for (size_t i = 0; i < clients_.size(); ++i) {
    const control::WorkerSnapshot snapshot = monitor_->snapshot(i);
    EngineStats::Worker worker;
    worker.name = clients_[i]->name();
    worker.state = snapshot.state == control::WatchState::kUnreachable ? "down" : "standby";
    worker.num_restarts = snapshot.num_downs;
    {
      const std::lock_guard lock(mutex_);
      const std::optional<control::WorkerInfo>& info = candidates_[i].info;
      worker.kv_bytes_per_second = info ? info->kv_bytes_per_second : 0;
    }
    for (const Member& member : members_) {
      if (member.worker_idx != i || !replicas_.is_open()) continue;
      worker.state = snapshot.state == control::WatchState::kWatched ? "up" : "down";
      worker.epoch = epoch_;
      worker.num_kv_heads = member.share * program_.num_kv_heads();
      worker.attention_seconds = snapshot.stats.attention_seconds;
      for (const auto& remote : remote_) {
        const WireStats stats = remote->wire_stats_of(worker.name);
        worker.bytes_sent += stats.bytes_sent;
        worker.bytes_received += stats.bytes_received;
      }
    }
    workers.push_back(std::move(worker));
  }
  return workers;
}

}  // namespace lamina
