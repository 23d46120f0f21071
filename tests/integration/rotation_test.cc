// Rotation for real: 3 micro-batches over 2 replicas of the model, each a process with its own
// weights (mapped from one file), with 3 attention-worker processes, over shared memory and TCP.
// Carried values migrate at every slice. Greedy ids equal the goldens, exactly.
#include <gtest/gtest.h>

#include "engine/local_backend.h"
#include "plan/partition.h"
#include "support/fixture_model.h"
#include "support/paths.h"
#include "support/sequence_run.h"
#include "support/worker_process.h"
#include "worker/remote_attention.h"
#include "worker/replica_slots.h"

namespace lamina {
namespace {

constexpr uint64_t kEpoch = 1;
constexpr Rotation kRotation{.num_micro_batches = 3, .num_replicas = 2};
constexpr int32_t kNumWorkers = 3;
constexpr int32_t kMaxTokens = 40;
constexpr int32_t kNumBlocks = test::kFixtureBlocks;

ModelProgram load(const std::string& name) {
  return test::load_fixture(
      test::fixture_path("models/" + name), 1, kMaxTokens, RewriteOptions(), kRotation);
}

PlannedPartition plan(const ModelProgram& program, PartitionKind kind) {
  const std::vector<PartitionWorker> workers(kNumWorkers,
                                             {.name = "worker", .budget_bytes = 1 << 30});
  return plan_partition({.kind = kind,
                         .layout = program.kv_layout(program.num_kv_heads()),
                         .workers = workers,
                         .min_blocks = kNumBlocks,
                         .max_blocks = kNumBlocks})
      .value_or_throw();
}

// The tiles that each attention worker holds, in processes.
struct AttentionPool {
  AttentionPool(const ModelProgram& program, const KvPartition& partition, TransportKind kind) {
    for (int32_t i = 0; i < kNumWorkers; ++i) {
      std::vector<AttentionWorkerConfig> parts;
      for (const KvTile& tile : partition.tiles) {
        if (tile.worker_idx != i) continue;
        tiles.push_back(tile);
        parts.push_back({.core = program.attention_core(0, tile.kv_heads, tile.blocks.count()),
                         .epoch = kEpoch,
                         .dtype = DType::kF32,
                         .total_blocks = kNumBlocks,
                         .num_replicas = kRotation.num_replicas});
      }
      if (parts.empty()) continue;
      workers.push_back(std::make_unique<test::WorkerProcess>(kind, std::move(parts)));
    }
  }
  // For each part of each worker.
  template <typename Visit>
  void for_each_part(const Visit& visit) const {
    size_t next_tile = 0;
    for (const auto& worker : workers) {
      for (size_t part = 0; part < worker->parts().size(); ++part) {
        visit(*worker, part, tiles[next_tile++]);
      }
    }
  }

  std::vector<KvTile> tiles;
  std::vector<std::unique_ptr<test::WorkerProcess>> workers;
};

EndpointConfig engine_link(TransportKind kind, const StepCodecLimits& limits, bool is_replica) {
  const PeerId engine{100, kEpoch};
  const PeerId replica{101, kEpoch};
  const auto at_replica = replica_slots_for_engine(limits);
  const auto at_engine = engine_slots_for_replica(limits);
  return {.kind = kind,
          .self = is_replica ? replica : engine,
          .peer = is_replica ? engine : replica,
          .receive_slots = is_replica ? at_replica : at_engine,
          .send_slots = is_replica ? at_engine : at_replica,
          .listens = is_replica,
          .host = "127.0.0.1"};
}

EndpointConfig replica_link(TransportKind kind, const RankGroup& runner, int32_t replica_idx) {
  const auto slots =
      replica_slots_for_replica(kRotation.num_micro_batches, runner.max_carried_bytes());
  const auto id = static_cast<uint64_t>(replica_idx);
  return {.kind = kind,
          .self = {200 + id, kEpoch},
          .peer = {201 - id, kEpoch},
          .receive_slots = slots,
          .send_slots = slots,
          .listens = replica_idx == 0,
          .host = "127.0.0.1"};
}

// A replica's process: its own model, endpoints in the order in which the parent brokers them.
void run_replica(const std::string& model,
                 TransportKind kind,
                 int32_t replica_idx,
                 const AttentionPool& attention,
                 const test::Channel& channel) {
  const ModelProgram program = load(model);
  ThreadPool pool(1);
  const std::vector<StreamView> streams = {StreamView(pool)};
  RankGroup runner(program.rank_models(streams),
                   program.step_limits(),
                   kRotation.num_micro_batches,
                   test::kChildTimeout);
  std::vector<AttentionPeer> peers;
  attention.for_each_part([&](const test::WorkerProcess& worker, size_t part, const KvTile& tile) {
    peers.push_back({.name = "worker",
                     .kv_heads = tile.kv_heads,
                     .blocks = tile.blocks,
                     .endpoint = connect_through(channel, worker.replica_side(part))});
  });
  RemoteAttention remote({.epoch = kEpoch,
                          .num_layers = program.num_layers(),
                          .num_heads = program.attention().num_heads,
                          .num_kv_heads = program.attention().num_kv_heads,
                          .value_dim = program.attention().value_dim,
                          .latent = program.attention().latent,
                          .dtype = DType::kF32,
                          .block_size = program.block_size,
                          .max_sequences = program.max_num_seqs,
                          .max_tokens = kMaxTokens,
                          .rotation = kRotation,
                          .replica_idx = replica_idx,
                          .sinks = program.sinks(0)},
                         std::move(peers),
                         streams[0]);
  const auto other = connect_through(channel, replica_link(kind, runner, replica_idx));
  const StepCodecLimits limits = program.step_codec_limits(kNumBlocks);
  const auto engine = connect_through(channel, engine_link(kind, limits, /*is_replica=*/true));
  ReplicaLinks links{
      .engine = engine.get(), .replicas = {nullptr, nullptr}, .attention = {&remote}};
  links.replicas[1 - static_cast<size_t>(replica_idx)] = other.get();
  ModelReplica replica(
      {.epoch = kEpoch, .rotation = kRotation, .replica_idx = replica_idx, .limits = limits},
      links,
      runner,
      streams[0]);
  std::thread reporter([&] {  // what the parent asks for at the end
    static_cast<void>(channel.receive());
    channel.send(std::to_string(replica.stats().bytes_carried.load()));
  });
  const std::atomic<bool> should_stop{false};
  static_cast<void>(replica.serve(should_stop, WaitPolicy{}, test::kChildTimeout));
  reporter.join();
}

class Rotating {
 public:
  Rotating(const std::string& model, TransportKind kind, PartitionKind partition)
      : program_(load(model)),
        planned_(plan(program_, partition)),
        attention_(program_, planned_.partition, kind) {
    for (int32_t i = 0; i < kRotation.num_replicas; ++i) {
      replicas_.push_back(
          std::make_unique<test::ChildProcess>([&, i](const test::Channel& channel) {
            run_replica(model, kind, i, attention_, channel);
          }));
    }
    attention_.for_each_part([&](const test::WorkerProcess& worker, size_t, const KvTile&) {
      for (const auto& replica : replicas_) broker(worker.channel(), replica->channel());
    });
    test::broker(replicas_[0]->channel(), replicas_[1]->channel());
    const StepCodecLimits limits = program_.step_codec_limits(kNumBlocks);
    std::vector<std::unique_ptr<Endpoint>> endpoints;
    for (const auto& replica : replicas_) {
      endpoints.push_back(
          connect_through(replica->channel(), engine_link(kind, limits, /*is_replica=*/false)));
    }
    pipeline_ =
        std::make_unique<StepPipeline>(StepPipelineConfig{.epoch = kEpoch,
                                                          .rotation = kRotation,
                                                          .num_layers = program_.num_layers(),
                                                          .limits = limits},
                                       std::move(endpoints));
  }

  // Which micro-batches had steps.
  Result<uint32_t> run(std::vector<Sequence>& sequences) {
    SchedulerConfig config = program_.scheduler();
    config.blocks = planned_.lanes;
    return test::run_to_end(
        config,
        sequences,
        {.start = [this](int32_t micro_batch,
                         StepPlan plan) { return pipeline_->start(micro_batch, std::move(plan)); },
         .wait = [this](Deadline deadline) { return wait(deadline); }});
  }

  // Of each replica.
  [[nodiscard]] std::vector<uint64_t> bytes_carried() const {
    std::vector<uint64_t> bytes;
    for (const auto& replica : replicas_) {
      replica->channel().send("report");
      bytes.push_back(std::stoull(replica->channel().receive()));
    }
    return bytes;
  }

 private:
  Result<std::optional<FinishedStep>> wait(Deadline deadline) {
    while (true) {
      auto finished = pipeline_->poll();
      if (!finished.ok() || *finished) return finished;
      std::vector<AwaitedMessage> awaited;
      pipeline_->add_awaited(awaited);
      LAMINA_RETURN_IF_ERROR(wait_any(awaited, deadline, WaitPolicy{}));
    }
  }

  ModelProgram program_;
  PlannedPartition planned_;
  AttentionPool attention_;
  std::vector<std::unique_ptr<test::ChildProcess>> replicas_;
  std::unique_ptr<StepPipeline> pipeline_;
};

struct Case {
  std::string model;
  TransportKind transport = TransportKind::kShm;
  PartitionKind partition = PartitionKind::kAuto;
};

class Rotation2Replicas : public ::testing::TestWithParam<Case> {};

TEST_P(Rotation2Replicas, GivesTheGoldensIds) {
  const Case& tested = GetParam();
  const test::Golden golden = test::read_golden(test::fixture_path("models/" + tested.model));
  Rotating rotating(tested.model, tested.transport, tested.partition);
  std::vector<Sequence> sequences = test::sequences_of(golden);
  const Result<uint32_t> used = rotating.run(sequences);
  ASSERT_TRUE(used.ok()) << used.status().to_string();
  EXPECT_EQ(*used, 0b111U);
  test::expect_greedy(sequences, golden);
  for (const uint64_t bytes : rotating.bytes_carried()) EXPECT_GT(bytes, 0U);
}

// The threads of a server: its engine's, and a replica's over loopback endpoints.
TEST(ReplicaThreads, ThreeMicroBatchesColocated) {
  const auto folder = test::fixture_path("models/llama-gqa");
  const test::Golden golden = test::read_golden(folder);
  const ModelProgram program = test::load_fixture(
      folder, 1, kMaxTokens, RewriteOptions(), {.num_micro_batches = 3, .num_replicas = 1});
  ThreadPool pool(1);
  const std::vector<StreamView> streams = {StreamView(pool)};
  LocalBackend backend(program, uint64_t{1} << 30, streams);
  for (int session = 0; session < 2; ++session) {
    SchedulerConfig config = program.scheduler();
    config.blocks = backend.open_session(test::kFixtureBlocksPerSequence).value_or_throw();
    std::vector<Sequence> sequences = test::sequences_of(golden);
    const Result<uint32_t> used = test::run_to_end(
        config,
        sequences,
        {.start = [&](int32_t i, StepPlan plan) { return backend.start(i, std::move(plan)); },
         .wait = [&](Deadline deadline) { return backend.wait(deadline); }});
    ASSERT_TRUE(used.ok()) << used.status().to_string();
    test::expect_greedy(sequences, golden);
    EXPECT_GT(backend.times().model_seconds, 0.0);
    EXPECT_GT(backend.times().host_seconds, 0.0);
  }
  backend.close();
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model :
       {"llama-gqa", "llama-mha-tied", "deepseek_v2", "falcon", "gemma2", "gpt_oss", "bloom"}) {
    all.push_back({model, TransportKind::kShm, PartitionKind::kAuto});
    all.push_back({model, TransportKind::kTcp, PartitionKind::kSequence});
  }
  return all;
}

std::string name_of(const Case& tested) {
  std::string name = tested.model + "_" + std::string(transport_name(tested.transport));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

void PrintTo(const Case& tested, std::ostream* stream) {
  *stream << name_of(tested);
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  return name_of(info.param);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Rotation2Replicas, ::testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace lamina
