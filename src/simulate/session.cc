#include "simulate/session.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"
#include "wire/slots.h"
#include "worker/replica_slots.h"

namespace lamina::simulate {
namespace {

constexpr uint64_t kEngineId = 1;
constexpr uint64_t kFirstReplicaId = 100;
constexpr uint64_t kFirstTileId = 1000;

uint32_t unsigned_of(int32_t value) {
  return static_cast<uint32_t>(value);
}

KvLayout layout_of(const Scenario& scenario, int32_t num_kv_heads) {
  return {.num_layers = scenario.model.num_layers,
          .num_kv_heads = num_kv_heads,
          .head_dim = scenario.model.head_dim,
          .value_dim = scenario.model.value_dim,
          .block_size = scenario.block_size,
          .dtype = scenario.kv_dtype};
}

PlannedPartition plan_for(const Scenario& scenario, const SessionSpec& spec) {
  std::vector<PartitionWorker> workers;
  workers.reserve(spec.worker_speeds.size());
  for (const double speed : spec.worker_speeds) {
    workers.push_back({.name = fmt::format("worker {}", workers.size()),
                       .budget_bytes = uint64_t{1} << 40,
                       .speed = speed});
  }
  return plan_partition({.kind = spec.partition,
                         .layout = layout_of(scenario, scenario.model.num_kv_heads),
                         .workers = workers,
                         .min_blocks = scenario.min_blocks(),
                         .max_blocks = spec.max_blocks})
      .value_or_throw();
}

class ReplicaProcess final : public Process {
 public:
  struct Parts {
    std::unique_ptr<Endpoint> to_engine;
    std::vector<std::unique_ptr<Endpoint>> to_replicas;
    std::unique_ptr<RemoteAttention> attention;
    std::unique_ptr<FakeRunner> runner;
  };

  ReplicaProcess(SimHost& host, Parts parts, const ModelReplicaConfig& config, StreamView stream)
      : Process(host),
        parts_(std::move(parts)),
        replica_(config, links(), *parts_.runner, stream, host) {}

  Result<bool> step() override { return replica_.step(); }
  void add_awaited(std::vector<AwaitedMessage>& awaited) const override {
    replica_.add_awaited(awaited);
  }

 private:
  [[nodiscard]] ReplicaLinks links() const {
    ReplicaLinks links{
        .engine = parts_.to_engine.get(), .replicas = {}, .attention = {parts_.attention.get()}};
    for (const auto& other : parts_.to_replicas) links.replicas.push_back(other.get());
    return links;
  }

  Parts parts_;
  ModelReplica replica_;
};

// An attention worker's process: the holder of some tiles.
class AttentionProcess final : public Process {
 public:
  struct Part {
    std::vector<std::unique_ptr<Endpoint>> to_replicas;
    std::unique_ptr<AttentionWorker> worker;
  };

  AttentionProcess(SimHost& host, std::vector<Part> parts)
      : Process(host), parts_(std::move(parts)) {}

  // As TileWorker::serve() takes them in turn.
  Result<bool> step() override {
    for (size_t i = 0; i < parts_.size(); ++i) {
      const size_t part = (next_ + i) % parts_.size();
      LAMINA_ASSIGN_OR_RETURN(const bool did, parts_[part].worker->step());
      if (!did) continue;
      next_ = part + 1;
      return true;
    }
    return false;
  }
  void add_awaited(std::vector<AwaitedMessage>& awaited) const override {
    for (const Part& part : parts_) part.worker->add_awaited(awaited);
  }

 private:
  std::vector<Part> parts_;
  size_t next_ = 0;
};

}  // namespace

Session::Session(const World& world,
                 const SessionSpec& spec,
                 uint64_t epoch,
                 SimHost& engine,
                 PipelineRecord& record,
                 Replay& replay)
    : world_(world),
      epoch_(epoch),
      record_(record),
      replay_(replay),
      planned_(plan_for(*world.scenario, spec)) {
  const auto host = [&](const char* what, size_t idx) {
    return &world_.network->add_host(fmt::format("{} {} of epoch {}", what, idx, epoch));
  };
  for (size_t i = 0; i < spec.worker_speeds.size(); ++i) {
    worker_hosts_.push_back(host("attention worker", i));
  }
  for (int32_t i = 0; i < scenario().rotation.num_replicas; ++i) {
    replicas_.push_back({.host = host("replica", replicas_.size()),
                         .to_engine = {},
                         .to_replicas = {},
                         .peers = {}});
  }
  connect_engine(engine);
  connect_replicas();
  connect_attention();
  plan_faults(spec.faults);
  for (size_t i = 0; i < replicas_.size(); ++i) start_replica(i);
  for (size_t i = 0; i < worker_hosts_.size(); ++i) start_worker(static_cast<int32_t>(i));
  pipeline_ =
      std::make_unique<StepPipeline>(StepPipelineConfig{.epoch = epoch_,
                                                        .rotation = scenario().rotation,
                                                        .num_layers = scenario().model.num_layers,
                                                        .limits = limits()},
                                     std::move(engine_ends_));
}

StepCodecLimits Session::limits() const {
  return {.max_micro_batches = scenario().rotation.num_micro_batches,
          .num_replicas = scenario().rotation.num_replicas,
          .max_sequences = scenario().max_num_seqs,
          .max_tokens = scenario().max_num_batched_tokens,
          .max_logits_rows = scenario().max_num_seqs + 1,
          .max_blocks = planned_.partition.num_blocks,
          .vocab_size = scenario().model.vocab_size};
}

AttentionCoreConfig Session::core_config(const KvTile& tile) const {
  const FakeModelConfig& model = scenario().model;
  AttentionCoreConfig config{
      .kv = layout_of(scenario(), tile.kv_heads.count()),
      .num_blocks = tile.blocks.count(),
      .num_heads = tile.kv_heads.count() * (model.num_heads / model.num_kv_heads),
      .max_sequences = scenario().max_num_seqs,
      .max_tokens = scenario().max_num_batched_tokens,
      .max_blocks_per_sequence = scenario().min_blocks(),
      .num_micro_batches = scenario().rotation.num_micro_batches,
      .overlap = scenario().overlap,
      .layers = {}};
  for (const std::optional<int32_t>& window : model.windows) {
    config.layers.push_back({.scale = 1, .window = window});
  }
  return config;
}

Stopwatch Session::stopwatch(uint64_t owner) const {
  return {scenario().times, scenario().seed * 1000003 + epoch_ * 10007 + owner};
}

// ---- wires ----

std::pair<std::unique_ptr<Endpoint>, std::unique_ptr<Endpoint>> Session::connect(
    SimHost& a,
    uint64_t id_a,
    std::vector<size_t> at_a,
    SimHost& b,
    uint64_t id_b,
    std::vector<size_t> at_b) {
  EndpointConfig config_a;
  config_a.self = {.id = id_a, .epoch = epoch_};
  config_a.peer = {.id = id_b, .epoch = epoch_};
  config_a.receive_slots = std::move(at_a);
  config_a.send_slots = std::move(at_b);
  EndpointConfig config_b;
  config_b.self = config_a.peer;
  config_b.peer = config_a.self;
  config_b.receive_slots = config_a.send_slots;
  config_b.send_slots = config_a.receive_slots;
  SimNetwork::Pair made = world_.network->connect(a, config_a, b, config_b, scenario().link);
  links_.push_back(made.a.get());
  return {with_replay(std::move(made.a), config_a, a), with_replay(std::move(made.b), config_b, b)};
}

std::unique_ptr<Endpoint> Session::with_replay(std::unique_ptr<Endpoint> endpoint,
                                               const EndpointConfig& config,
                                               const SimHost& host) {
  if (!replay_.keeps_sent && replay_.old == nullptr) return endpoint;
  return std::make_unique<ReplayEndpoint>(std::move(endpoint), config, host, replay_);
}

void Session::connect_engine(SimHost& engine) {
  for (size_t i = 0; i < replicas_.size(); ++i) {
    auto [there, here] = connect(engine,
                                 kEngineId,
                                 engine_slots_for_replica(limits()),
                                 *replicas_[i].host,
                                 kFirstReplicaId + i,
                                 replica_slots_for_engine(limits()));
    engine_ends_.push_back(std::move(there));
    replicas_[i].to_engine = std::move(here);
    replicas_[i].to_replicas.resize(replicas_.size());
  }
}

// Replica r hands on to replica (r + n) mod R alone.
void Session::connect_replicas() {
  const size_t count = replicas_.size();
  const auto num_batches = static_cast<size_t>(scenario().rotation.num_micro_batches);
  const size_t carried_bytes =
      static_cast<size_t>(scenario().max_num_batched_tokens) * sizeof(FakeModel::State);
  const auto receives = [&](size_t from, size_t to) {
    if ((from + num_batches) % count != to) return std::vector<size_t>();
    return replica_slots_for_replica(scenario().rotation.num_micro_batches, carried_bytes);
  };
  for (size_t a = 0; a < count; ++a) {
    for (size_t b = a + 1; b < count; ++b) {
      if (receives(a, b).empty() && receives(b, a).empty()) continue;
      auto [at_a, at_b] = connect(*replicas_[a].host,
                                  kFirstReplicaId + a,
                                  receives(b, a),
                                  *replicas_[b].host,
                                  kFirstReplicaId + b,
                                  receives(a, b));
      replicas_[a].to_replicas[b] = std::move(at_a);
      replicas_[b].to_replicas[a] = std::move(at_b);
    }
  }
}

void Session::connect_attention() {
  const FakeModelConfig& model = scenario().model;
  for (const KvTile& tile : planned_.partition.tiles) {
    const AttentionCoreConfig core = core_config(tile);
    const wire::SlotGeometry geometry{
        .num_micro_batches = unsigned_of(core.num_micro_batches),
        .max_tokens = unsigned_of(core.max_tokens),
        .max_sequences = unsigned_of(core.max_sequences),
        .num_blocks = unsigned_of(planned_.partition.num_blocks),
        .num_heads = unsigned_of(core.num_heads),
        .num_kv_heads = unsigned_of(tile.kv_heads.count()),
        .head_dim = unsigned_of(model.head_dim),
        .value_dim = unsigned_of(model.value_dim),
        .dtype = DType::kF32,
        .out_dtype = DType::kF32,
        .may_be_partial = tile.blocks.count() < planned_.partition.num_blocks};
    Tile& added = tiles_.emplace_back(Tile{.tile = tile, .to_replicas = {}});
    SimHost& host = *worker_hosts_[static_cast<size_t>(tile.worker_idx)];
    for (size_t i = 0; i < replicas_.size(); ++i) {
      auto [there, here] = connect(*replicas_[i].host,
                                   kFirstReplicaId + i,
                                   wire::model_worker_slots(geometry),
                                   host,
                                   kFirstTileId + tiles_.size() - 1,
                                   wire::attention_worker_slots(geometry));
      replicas_[i].peers.push_back({.name = host.name(),
                                    .kv_heads = tile.kv_heads,
                                    .blocks = tile.blocks,
                                    .endpoint = std::move(there)});
      added.to_replicas.push_back(std::move(here));
    }
  }
}

// ---- processes ----

void Session::start_replica(size_t idx) {
  Replica& replica = replicas_[idx];
  const auto replica_idx = static_cast<int32_t>(idx);
  const FakeModelConfig& model = scenario().model;
  const RemoteAttentionConfig remote{.epoch = epoch_,
                                     .num_layers = model.num_layers,
                                     .num_heads = model.num_heads,
                                     .num_kv_heads = model.num_kv_heads,
                                     .value_dim = model.value_dim,
                                     .dtype = DType::kF32,
                                     .block_size = scenario().block_size,
                                     .max_sequences = scenario().max_num_seqs,
                                     .max_tokens = scenario().max_num_batched_tokens,
                                     .rotation = scenario().rotation,
                                     .replica_idx = replica_idx,
                                     .wait = {}};
  const StreamView stream(*world_.pool);
  ReplicaProcess::Parts parts{
      .to_engine = std::move(replica.to_engine),
      .to_replicas = std::move(replica.to_replicas),
      .attention = std::make_unique<RemoteAttention>(remote, std::move(replica.peers), stream),
      .runner = std::make_unique<FakeRunner>(
          *world_.model,
          Place{.host = replica.host, .record = &record_, .idx = replica_idx},
          stopwatch(kFirstReplicaId + idx),
          scenario().rotation.num_micro_batches,
          scenario().max_num_batched_tokens)};
  const ModelReplicaConfig config{.epoch = epoch_,
                                  .rotation = scenario().rotation,
                                  .replica_idx = replica_idx,
                                  .limits = limits()};
  world_.loop->add(
      std::make_unique<ReplicaProcess>(*replica.host, std::move(parts), config, stream));
}

void Session::start_worker(int32_t idx) {
  SimHost& host = *worker_hosts_[static_cast<size_t>(idx)];
  const StreamView stream(*world_.pool);
  std::vector<AttentionProcess::Part> parts;
  for (size_t i = 0; i < tiles_.size(); ++i) {
    if (tiles_[i].tile.worker_idx != idx) continue;
    const AttentionWorkerConfig config{.core = core_config(tiles_[i].tile),
                                       .epoch = epoch_,
                                       .dtype = DType::kF32,
                                       .total_blocks = planned_.partition.num_blocks,
                                       .num_replicas = scenario().rotation.num_replicas};
    auto core = std::make_unique<TimedCore>(config.core,
                                            stream,
                                            Place{.host = &host, .record = &record_, .idx = idx},
                                            stopwatch(kFirstTileId + i));
    std::vector<Endpoint*> replicas;
    for (const auto& endpoint : tiles_[i].to_replicas) replicas.push_back(endpoint.get());
    auto worker = std::make_unique<AttentionWorker>(
        config, std::move(replicas), std::move(core), static_cast<const Clock&>(host));
    parts.push_back({.to_replicas = std::move(tiles_[i].to_replicas), .worker = std::move(worker)});
  }
  // One without a share stands by.
  if (!parts.empty()) {
    world_.loop->add(std::make_unique<AttentionProcess>(host, std::move(parts)));
  }
}

void Session::plan_faults(const std::vector<Fault>& faults) {
  for (const Fault& fault : faults) {
    const TimePoint at = world_.network->now() + fault.after;
    switch (fault.kind) {
      case FaultKind::kReplicaDies:
        world_.network->kill(*replicas_[fault.idx % replicas_.size()].host, at);
        break;
      case FaultKind::kAttentionWorkerDies:
        world_.network->kill(*worker_hosts_[fault.idx % worker_hosts_.size()], at);
        break;
      case FaultKind::kLinkDies:
        world_.network->cut(*links_[fault.idx % links_.size()], at);
        break;
    }
  }
  links_.clear();
}

}  // namespace lamina::simulate
