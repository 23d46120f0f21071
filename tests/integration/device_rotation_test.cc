// Rotation where devices send by themselves: replicas of the model that run groups of whole steps,
// as GPUs do, on threads of this process, and attention workers in processes of their own. q, k, v
// and outputs go by cuda_p2p, and so do carried values from replica to replica. On CPUs, where
// whoever would enqueue a wait waits. Greedy ids equal the goldens, exactly; whoever fails ends the
// session.
#include <gtest/gtest.h>

#include <csignal>

#include "engine/replica_links.h"
#include "engine/replica_set.h"
#include "plan/partition.h"
#include "support/paths.h"
#include "support/sequence_run.h"
#include "support/worker_process.h"

namespace lamina {
namespace {

constexpr uint64_t kEpoch = 1;
constexpr int32_t kMaxTokens = 40;
constexpr int32_t kNumBlocks = test::kFixtureBlocks;

struct Case {
  std::string model;
  Rotation rotation;
  int32_t num_ranks = 1;
  PartitionKind partition = PartitionKind::kHead;
  bool in_groups = true;  // else slice by slice, and hosts hand carried values on
};

// Attention workers first: they are forked before there are threads.
class DeviceRotation {
 public:
  explicit DeviceRotation(const Case& tested, Duration max_wait = test::kChildTimeout)
      : tested_(tested),
        program_(test::load_fixture(test::fixture_path("models/" + tested.model),
                                    tested.num_ranks,
                                    kMaxTokens,
                                    RewriteOptions(),
                                    tested.rotation)),
        planned_(plan()),
        max_wait_(max_wait) {
    for (int32_t i = 0; i < kNumWorkers; ++i) start_worker(i);
    for (int32_t i = 0; i < num_devices(); ++i) {
      pools_.push_back(std::make_unique<ThreadPool>(1));
      streams_.emplace_back(*pools_.back());
    }
    connect();
    replicas_ = std::make_unique<ReplicaSet>(program_, streams_);
    std::vector<std::vector<AttentionBackend*>> backends(
        static_cast<size_t>(tested.rotation.num_replicas));
    for (size_t i = 0; i < attention_.size(); ++i) {
      backends[i / program_.ranks.size()].push_back(attention_[i].get());
    }
    replicas_->open(kEpoch, kNumBlocks, backends);
  }

  // Calls `on_step` after each step.
  Result<uint32_t> run(
      std::vector<Sequence>& sequences, const std::function<void()>& on_step = [] {}) {
    SchedulerConfig config = program_.scheduler();
    config.blocks = planned_.lanes;
    return test::run_to_end(
        config,
        sequences,
        {.start = [&](int32_t i, StepPlan next) { return replicas_->start(i, std::move(next)); },
         .wait =
             [&](Deadline deadline) {
               auto finished = replicas_->wait(deadline);
               if (finished.ok() && *finished) on_step();
               return finished;
             }});
  }

  // One step.
  Status start_group() {
    StepPlan plan;
    plan.starts = {{.slot = 0, .sampling = {}, .num_prompt_tokens = 2}};
    plan.sequences = {{.slot = 0,
                       .num_tokens = 2,
                       .tokens = {1, 2},
                       .new_blocks = {0},
                       .starts = true,
                       .samples = true}};
    LAMINA_RETURN_IF_ERROR(replicas_->start(0, std::move(plan)));
    return replicas_->wait(Deadline::expired()).status();
  }

  void close() { replicas_->close(); }
  [[nodiscard]] test::WorkerProcess& worker() { return *workers_.front(); }
  // From replica 0 to the next.
  [[nodiscard]] Endpoint& link() { return *link_; }

 private:
  static constexpr int32_t kNumWorkers = 2;

  [[nodiscard]] int32_t num_devices() const {
    return tested_.num_ranks * tested_.rotation.num_replicas;
  }

  [[nodiscard]] PlannedPartition plan() const {
    const std::vector<PartitionWorker> workers(kNumWorkers,
                                               {.name = "worker", .budget_bytes = 1 << 30});
    return plan_partition({.kind = tested_.partition,
                           .layout = program_.kv_layout(program_.num_kv_heads()),
                           .workers = workers,
                           .min_blocks = kNumBlocks,
                           .max_blocks = kNumBlocks})
        .value_or_throw();
  }

  struct Part {
    int32_t rank = 0;
    HeadRange kv_heads;
    BlockRange blocks;
  };

  void start_worker(int32_t worker_idx) {
    std::vector<AttentionWorkerConfig> configs;
    std::vector<Part>& parts = parts_.emplace_back();
    const int32_t of_rank = program_.attention().num_kv_heads;
    for (const KvTile& tile : planned_.partition.tiles) {
      for (int32_t rank = 0; rank < tested_.num_ranks; ++rank) {
        const HeadRange heads = {std::max(tile.kv_heads.begin - rank * of_rank, 0),
                                 std::min(tile.kv_heads.end - rank * of_rank, of_rank)};
        if (tile.worker_idx != worker_idx || heads.begin >= heads.end) continue;
        parts.push_back({rank, heads, tile.blocks});
        configs.push_back({.core = program_.attention_core(rank, heads, tile.blocks.count()),
                           .epoch = kEpoch,
                           .dtype = DType::kF32,
                           .total_blocks = kNumBlocks,
                           .num_replicas = tested_.rotation.num_replicas});
      }
    }
    workers_.push_back(
        std::make_unique<test::WorkerProcess>(TransportKind::kCudaP2p, std::move(configs)));
  }

  void connect() {
    std::vector<std::vector<AttentionPeer>> peers(static_cast<size_t>(num_devices()));
    const auto num_replicas = static_cast<size_t>(tested_.rotation.num_replicas);
    for (size_t worker = 0; worker < workers_.size(); ++worker) {
      auto endpoints = workers_[worker]->connect();
      for (size_t i = 0; i < endpoints.size(); ++i) {
        const Part& part = parts_[worker][i / num_replicas];
        const size_t device =
            i % num_replicas * program_.ranks.size() + static_cast<size_t>(part.rank);
        peers[device].push_back({.name = "worker",
                                 .kv_heads = part.kv_heads,
                                 .blocks = part.blocks,
                                 .endpoint = std::move(endpoints[i])});
      }
    }
    std::vector<DeviceNeighbours> neighbours(peers.size());
    if (tested_.in_groups) neighbours = connect_devices(program_, streams_, kEpoch);
    link_ = neighbours.front().after.get();
    for (size_t i = 0; i < peers.size(); ++i) {
      attention_.push_back(std::make_unique<DeviceAttention>(
          device_config(i), std::move(peers[i]), streams_[i], std::move(neighbours[i])));
    }
  }

  [[nodiscard]] DeviceAttentionConfig device_config(size_t device) const {
    const AttentionAttrs& attention = program_.attention();
    return {.epoch = kEpoch,
            .num_layers = program_.num_layers(),
            .num_heads = attention.num_heads,
            .num_kv_heads = attention.num_kv_heads,
            .head_dim = attention.head_dim,
            .value_dim = attention.value_dim,
            .latent = attention.latent,
            .dtype = DType::kF32,
            .overlap = true,
            .block_size = program_.block_size,
            .max_sequences = program_.max_num_seqs,
            .rotation = tested_.rotation,
            .replica_idx = static_cast<int32_t>(device / program_.ranks.size()),
            .sinks = program_.sinks(static_cast<int32_t>(device % program_.ranks.size())),
            .max_wait = max_wait_,
            .in_groups = tested_.in_groups};
  }

  Case tested_;
  ModelProgram program_;
  PlannedPartition planned_;
  Duration max_wait_;
  std::vector<std::vector<Part>> parts_;  // of each worker
  std::vector<std::unique_ptr<test::WorkerProcess>> workers_;
  std::vector<std::unique_ptr<ThreadPool>> pools_;
  std::vector<StreamView> streams_;  // of each rank of each replica, as attention
  std::vector<std::unique_ptr<DeviceAttention>> attention_;
  Endpoint* link_ = nullptr;
  std::unique_ptr<ReplicaSet> replicas_;
};

test::Golden golden_of(const std::string& model) {
  return test::read_golden(test::fixture_path("models/" + model));
}

std::vector<Sequence> repeated(const test::Golden& golden, int count) {
  std::vector<Sequence> sequences;
  for (int i = 0; i < count; ++i) {
    for (const Sequence& sequence : test::sequences_of(golden)) {
      sequences.push_back(sequence);
      sequences.back().id = sequences.size();
    }
  }
  return sequences;
}

// Twice as many as run at once, of all lengths, so that they come and go.
std::vector<Sequence> coming_and_going(const test::Golden& golden) {
  std::vector<Sequence> sequences = repeated(golden, 2);
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i].max_total_tokens -= static_cast<int32_t>(3 * i);
  }
  return sequences;
}

class DeviceRotationGolden : public ::testing::TestWithParam<Case> {};

TEST_P(DeviceRotationGolden, GivesTheGoldensIds) {
  const Case& tested = GetParam();
  const test::Golden golden = golden_of(tested.model);
  DeviceRotation rotation(tested);
  std::vector<Sequence> sequences = coming_and_going(golden);
  const Result<uint32_t> used = rotation.run(sequences);
  ASSERT_TRUE(used.ok()) << used.status().to_string();
  EXPECT_EQ(*used, (1U << static_cast<uint32_t>(tested.rotation.num_micro_batches)) - 1);
  test::expect_greedy(sequences, golden);
}

const Case kTwoReplicas = {.model = "llama-gqa", .rotation = {3, 2}};

// The session's error after `fail`, which is called amid its steps; long before anybody's patience
// ends. A cut link is noticed by a thread of its own: there are steps for as long as that may take.
Status error_after(const std::function<void()>& fail, DeviceRotation& rotation) {
  const TimePoint begin = steady_clock().now();
  std::vector<Sequence> sequences = repeated(golden_of(kTwoReplicas.model), 64);
  int num_steps = 0;
  const Result<uint32_t> used = rotation.run(sequences, [&] {
    if (++num_steps == 5) fail();
  });
  rotation.close();
  EXPECT_LT(steady_clock().now() - begin, test::kChildTimeout / 2);
  return used.status();
}

TEST(DeviceRotationErrors, AnAttentionWorkerIsKilled) {
  DeviceRotation rotation(kTwoReplicas);
  const Status error = error_after([&] { rotation.worker().signal(SIGKILL); }, rotation);
  EXPECT_EQ(error.code(), StatusCode::kUnavailable) << error.to_string();
}

TEST(DeviceRotationErrors, ALinkBetweenReplicasIsCut) {
  DeviceRotation rotation(kTwoReplicas);
  const Status error = error_after([&] { rotation.link().abort(); }, rotation);
  EXPECT_EQ(error.code(), StatusCode::kUnavailable) << error.to_string();
}

TEST(DeviceRotationErrors, AnAttentionWorkerStops) {
  DeviceRotation rotation(kTwoReplicas, /*max_wait=*/std::chrono::milliseconds(300));
  const Status error = error_after([&] { rotation.worker().signal(SIGSTOP); }, rotation);
  EXPECT_EQ(error.code(), StatusCode::kDeadlineExceeded) << error.to_string();
}

// Replicas wait for attention, and for each other.
TEST(DeviceRotationErrors, ASessionIsClosedAmidAGroup) {
  const TimePoint begin = steady_clock().now();
  DeviceRotation rotation(kTwoReplicas);
  rotation.worker().signal(SIGSTOP);
  ASSERT_TRUE(rotation.start_group().ok());
  rotation.close();
  EXPECT_LT(steady_clock().now() - begin, test::kChildTimeout / 2);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Rotation rotation : {Rotation{2, 1},
                                  Rotation{1, 2},
                                  Rotation{2, 2},
                                  Rotation{3, 2},
                                  Rotation{4, 2},
                                  Rotation{2, 3},
                                  Rotation{3, 3},
                                  Rotation{4, 3}}) {
    all.push_back({.model = "llama-gqa", .rotation = rotation});
  }
  for (const char* model : {"llama-mha-tied", "deepseek_v2", "falcon", "gemma2", "gpt_oss"}) {
    all.push_back({.model = model, .rotation = {3, 2}});
  }
  for (const char* model : {"llama-gqa", "gpt_oss"}) {
    all.push_back({.model = model, .rotation = {4, 3}, .partition = PartitionKind::kSequence});
  }
  all.push_back({.model = "llama-gqa", .rotation = {3, 2}, .num_ranks = 2});
  all.push_back({.model = "llama-gqa", .rotation = {4, 3}, .in_groups = false});
  return all;
}

std::string name_of(const Case& tested) {
  std::string name = fmt::format("{}_{}_over_{}_{}{}{}",
                                 tested.model,
                                 tested.rotation.num_micro_batches,
                                 tested.rotation.num_replicas,
                                 partition_name(tested.partition),
                                 tested.num_ranks > 1 ? "_in_ranks" : "",
                                 tested.in_groups ? "" : "_slice_by_slice");
  std::ranges::replace(name, '-', '_');
  return name;
}

void PrintTo(const Case& tested, std::ostream* stream) {
  *stream << name_of(tested);
}

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         DeviceRotationGolden,
                         ::testing::ValuesIn(cases()),
                         [](const ::testing::TestParamInfo<Case>& tested) {
                           return name_of(tested.param);
                         });

}  // namespace
}  // namespace lamina
