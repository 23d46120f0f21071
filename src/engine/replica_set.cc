#include "engine/replica_set.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "engine/replica_links.h"
#include "worker/replica_slots.h"

namespace lamina {
namespace {

// How long a rank waits for the others: longer than any layer's attention may take, since another
// rank may be waiting for that.
constexpr Duration kExchangeTimeout = std::chrono::seconds(180);
constexpr Duration kIdleCheck = std::chrono::milliseconds(100);

PeerId peer_id(size_t replica, uint64_t epoch) {
  return {replica + 2, epoch};
}

ThreadEnds connect_by_memory(PeerId a,
                             std::vector<size_t> at_a,
                             PeerId b,
                             std::vector<size_t> at_b) {
  const EndpointConfig config_a{.kind = TransportKind::kLoopback,
                                .self = a,
                                .peer = b,
                                .receive_slots = at_a,
                                .send_slots = at_b};
  const EndpointConfig config_b{.kind = TransportKind::kLoopback,
                                .self = b,
                                .peer = a,
                                .receive_slots = std::move(at_b),
                                .send_slots = std::move(at_a)};
  return connect_threads(config_a, config_b);
}

}  // namespace

struct ReplicaSet::Replica {
  Replica(std::span<const RankModel> ranks, const StepLimits& limits, int32_t num_micro_batches)
      : runner(ranks, limits, num_micro_batches, kExchangeTimeout), stream(ranks.front().stream) {}

  RankGroup runner;
  StreamView stream;  // of rank 0, which samples
  std::unique_ptr<Endpoint> to_engine;
  std::vector<std::unique_ptr<Endpoint>> to_replicas;  // null where nothing is handed on
  std::unique_ptr<ModelReplica> session;
  std::thread thread;
  ReplicaTimes ended;  // of earlier sessions
};

ReplicaSet::ReplicaSet(const ModelProgram& program,
                       std::span<const StreamView> streams,
                       TraceWriter* trace)
    : program_(program), trace_(trace) {
  const auto num_ranks = static_cast<size_t>(program.num_ranks());
  const auto num_replicas = static_cast<size_t>(program.rotation.num_replicas);
  LAMINA_CHECK_EQ(streams.size(), num_ranks * num_replicas);
  for (size_t i = 0; i < num_replicas; ++i) {
    trace_rows_.push_back(trace == nullptr
                              ? TraceRow()
                              : trace->add_row("model replicas", fmt::format("replica {}", i)));
    replicas_.push_back(
        std::make_unique<Replica>(program.rank_models(streams.subspan(i * num_ranks, num_ranks), i),
                                  program.step_limits(),
                                  program.rotation.num_micro_batches));
  }
}

ReplicaSet::~ReplicaSet() {
  close();
}

void ReplicaSet::open(uint64_t epoch,
                      int32_t num_blocks,
                      const std::vector<std::vector<AttentionBackend*>>& attention) {
  LAMINA_CHECK(!is_open());
  LAMINA_CHECK_EQ(attention.size(), replicas_.size());
  const StepCodecLimits limits = program_.step_codec_limits(num_blocks);
  should_stop_ = false;
  attention_ = attention;
  connect_engine(epoch, limits);
  if (!runs_groups()) connect_replicas(epoch);
  for (size_t i = 0; i < replicas_.size(); ++i) {
    Replica& replica = *replicas_[i];
    ReplicaLinks links{.engine = replica.to_engine.get(),
                       .replicas = {},
                       .attention = attention[i],
                       .meter = &meter_,
                       .trace = trace_,
                       .trace_rows = trace_rows_};
    for (const auto& other : replica.to_replicas) links.replicas.push_back(other.get());
    const ModelReplicaConfig config{.epoch = epoch,
                                    .rotation = program_.rotation,
                                    .replica_idx = static_cast<int32_t>(i),
                                    .limits = limits};
    replica.session = std::make_unique<ModelReplica>(config, links, replica.runner, replica.stream);
    replica.thread = std::thread([this, &replica] { run(replica); });
  }
}

bool ReplicaSet::runs_groups() const {
  return attention_.front().front()->only_enqueues();
}

void ReplicaSet::connect_engine(uint64_t epoch, const StepCodecLimits& limits) {
  std::vector<std::unique_ptr<Endpoint>> to_replicas;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    ThreadEnds ends = connect_by_memory({1, epoch},
                                        engine_slots_for_replica(limits),
                                        peer_id(i, epoch),
                                        replica_slots_for_engine(limits));
    to_replicas.push_back(std::move(ends.a));
    replicas_[i]->to_engine = std::move(ends.b);
    replicas_[i]->to_replicas = std::vector<std::unique_ptr<Endpoint>>(replicas_.size());
  }
  pipeline_ = std::make_unique<StepPipeline>(StepPipelineConfig{.epoch = epoch,
                                                                .rotation = program_.rotation,
                                                                .num_layers = program_.num_layers(),
                                                                .limits = limits,
                                                                .in_groups = runs_groups()},
                                             std::move(to_replicas));
}

// Replica r hands on to replica (r + n) mod R alone.
void ReplicaSet::connect_replicas(uint64_t epoch) {
  const size_t count = replicas_.size();
  const auto num_batches = program_.rotation.num_micro_batches;
  const auto slots =
      replica_slots_for_replica(num_batches, replicas_.front()->runner.max_carried_bytes());
  const auto receives = [&](size_t from, size_t to) {
    const bool is_next = (from + static_cast<size_t>(num_batches)) % count == to;
    return is_next ? slots : std::vector<size_t>();
  };
  // Every endpoint has something to poll.
  const auto at_least_one = [](std::vector<size_t> sizes) {
    return sizes.empty() ? std::vector<size_t>{0} : sizes;
  };
  for (size_t a = 0; a < count; ++a) {
    for (size_t b = a + 1; b < count; ++b) {
      std::vector<size_t> at_a = receives(b, a);
      std::vector<size_t> at_b = receives(a, b);
      if (at_a.empty() && at_b.empty()) continue;
      ThreadEnds ends = connect_by_memory(peer_id(a, epoch),
                                          at_least_one(std::move(at_a)),
                                          peer_id(b, epoch),
                                          at_least_one(std::move(at_b)));
      replicas_[a]->to_replicas[b] = std::move(ends.a);
      replicas_[b]->to_replicas[a] = std::move(ends.b);
    }
  }
}

// Whoever waits for another's device gives up.
void ReplicaSet::end_waits() {
  for (const auto& of_replica : attention_) {
    for (AttentionBackend* backend : of_replica) backend->give_up();
  }
}

// A replica whose session fails leaves its endpoints, so that everybody else notices.
void ReplicaSet::run(Replica& replica) {
  replica.stream.adopt_this_thread();
  Status status;
  try {
    status = replica.session->serve(should_stop_, WaitPolicy{}, kIdleCheck);
  } catch (const std::exception& error) {
    status = internal_error(error.what());
  }
  if (status.ok() || should_stop_) return;
  log_info("a model replica ends its session: {}", status.to_string());
  replica.to_engine->fence_peer();
  end_waits();
}

void ReplicaSet::close() {
  should_stop_ = true;
  pipeline_.reset();  // which wakes the replicas
  end_waits();
  for (const auto& replica : replicas_) {
    if (replica->thread.joinable()) replica->thread.join();
  }
  for (const auto& replica : replicas_) {
    if (replica->session == nullptr) continue;
    const ModelReplicaStats& stats = replica->session->stats();
    replica->ended.slices += Duration(stats.slice_ns.load());
    replica->ended.waiting += Duration(stats.wait_ns.load());
    replica->ended.host += Duration(stats.host_ns.load());
    replica->ended.bytes_carried += stats.bytes_carried;
    replica->session.reset();
    replica->runner.forget_graphs();
    replica->to_replicas.clear();
    replica->to_engine.reset();
  }
  attention_.clear();
}

Status ReplicaSet::start(int32_t micro_batch, StepPlan plan) {
  LAMINA_CHECK(is_open());
  return pipeline_->start(micro_batch, std::move(plan));
}

Result<std::optional<FinishedStep>> ReplicaSet::wait(Deadline deadline) {
  LAMINA_CHECK(is_open());
  LAMINA_ASSIGN_OR_RETURN(std::optional<FinishedStep> finished, pipeline_->poll());
  if (finished) return finished;
  awaited_.clear();
  pipeline_->add_awaited(awaited_);
  const Status waited = wait_any(awaited_, deadline, WaitPolicy{}, &wake_flag_);
  wake_flag_.clear();  // now, not before: who raises it leaves its news first
  if (!waited.ok() && waited.code() != StatusCode::kDeadlineExceeded) return waited;
  return pipeline_->poll();
}

BackendTimes to_backend_times(const ReplicaTimes& times) {
  const auto seconds = [](Duration duration) {
    return std::chrono::duration<double>(duration).count();
  };
  return {.model_seconds = seconds(times.slices),
          .attention_wait_seconds = seconds(times.waiting),
          .host_seconds = seconds(times.host)};
}

ReplicaTimes ReplicaSet::times() const {
  ReplicaTimes sum;
  for (const auto& replica : replicas_) {
    sum.slices += replica->ended.slices;
    sum.waiting += replica->ended.waiting;
    sum.host += replica->ended.host;
    sum.bytes_carried += replica->ended.bytes_carried;
    if (replica->session == nullptr) continue;
    sum.slices += Duration(replica->session->stats().slice_ns.load());
    sum.waiting += Duration(replica->session->stats().wait_ns.load());
    sum.host += Duration(replica->session->stats().host_ns.load());
    sum.bytes_carried += replica->session->stats().bytes_carried;
  }
  return sum;
}

}  // namespace lamina
