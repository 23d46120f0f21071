// Every fixture model against its independent golden: colocated, with attention in 2, 3 and 5
// worker processes under each way to split it, and with tensor parallelism over 2 and 4 ranks and 3
// worker processes. Logits of every prompt position within 1e-5 of their range, greedy ids equal,
// all prompts in one ragged batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "engine/model_program.h"
#include "model/builder.h"
#include "model/model_files.h"
#include "plan/partition.h"
#include "support/fixture_model.h"
#include "support/golden_runner.h"
#include "support/paths.h"
#include "support/worker_process.h"
#include "worker/device_attention.h"
#include "worker/local_attention.h"
#include "worker/remote_attention.h"

namespace lamina {
namespace {

constexpr int32_t kBlockSize = test::kFixtureBlockSize;
constexpr int32_t kMaxSequences = test::kFixtureSequences;
constexpr int32_t kMaxTokens = test::kGoldenMaxTokens;

using test::Golden;
using test::read_golden;
using test::relative_error;

constexpr int32_t kNumBlocks = test::kFixtureBlocks;

// Attention of each rank, wherever it runs.
using Attention = std::vector<std::unique_ptr<AttentionBackend>>;

// Attention of a model in worker processes: forked first, connected when threads may exist.
class Offloaded {
 public:
  Offloaded(const ModelProgram& program,
            TransportKind transport,
            int32_t num_workers,
            PartitionKind kind)
      : program_(program), planned_(plan(program, num_workers, kind)) {
    for (int32_t i = 0; i < num_workers; ++i) start_worker(transport, i);
  }

  [[nodiscard]] const BlockLanes& lanes() const { return planned_.lanes; }

  Attention connect() {
    std::vector<std::vector<AttentionPeer>> peers(program_.ranks.size());
    for (Worker& worker : workers_) {
      auto endpoints = worker.process->connect();
      for (size_t i = 0; i < endpoints.size(); ++i) {
        peers[static_cast<size_t>(worker.parts[i].rank)].push_back(
            {.name = "worker",
             .kv_heads = worker.parts[i].kv_heads,
             .blocks = worker.parts[i].blocks,
             .endpoint = std::move(endpoints[i])});
      }
    }
    Attention attention;
    for (size_t rank = 0; rank < peers.size(); ++rank) {
      if (peers[rank].front().endpoint->device_link() != nullptr) {
        attention.push_back(by_devices(static_cast<int32_t>(rank), std::move(peers[rank])));
        continue;
      }
      attention.push_back(std::make_unique<RemoteAttention>(
          RemoteAttentionConfig{.epoch = 1,
                                .num_layers = program_.num_layers(),
                                .num_heads = program_.attention().num_heads,
                                .num_kv_heads = program_.attention().num_kv_heads,
                                .value_dim = program_.attention().value_dim,
                                .latent = program_.attention().latent,
                                .dtype = DType::kF32,
                                .block_size = kBlockSize,
                                .max_sequences = kMaxSequences,
                                .max_tokens = kMaxTokens,
                                .sinks = program_.sinks(static_cast<int32_t>(rank)),
                                .reply_timeout = std::chrono::seconds(5)},
          std::move(peers[rank]),
          StreamView(pool_)));
    }
    return attention;
  }

 private:
  std::unique_ptr<AttentionBackend> by_devices(int32_t rank, std::vector<AttentionPeer> peers) {
    return std::make_unique<DeviceAttention>(
        DeviceAttentionConfig{.epoch = 1,
                              .num_layers = program_.num_layers(),
                              .num_heads = program_.attention().num_heads,
                              .num_kv_heads = program_.attention().num_kv_heads,
                              .head_dim = program_.attention().head_dim,
                              .value_dim = program_.attention().value_dim,
                              .latent = program_.attention().latent,
                              .dtype = DType::kF32,
                              .overlap = overlaps(),
                              .block_size = kBlockSize,
                              .max_sequences = kMaxSequences,
                              .sinks = program_.sinks(rank)},
        std::move(peers),
        StreamView(pool_));
  }
  // Both ways are tried.
  [[nodiscard]] bool overlaps() const { return program_.num_ranks() == 1; }

  struct Part {
    int32_t rank = 0;
    HeadRange kv_heads;
    BlockRange blocks;
  };
  struct Worker {
    std::vector<Part> parts;
    std::unique_ptr<test::WorkerProcess> process;
  };

  static PlannedPartition plan(const ModelProgram& program,
                               int32_t num_workers,
                               PartitionKind kind) {
    const std::vector<PartitionWorker> workers(static_cast<size_t>(num_workers),
                                               {.name = "worker", .budget_bytes = 1 << 30});
    return plan_partition({.kind = kind,
                           .layout = program.kv_layout(program.num_kv_heads()),
                           .workers = workers,
                           .min_blocks = kNumBlocks,
                           .max_blocks = kNumBlocks})
        .value_or_throw();
  }

  void start_worker(TransportKind transport, int32_t worker_idx) {
    Worker worker;
    std::vector<AttentionWorkerConfig> configs;
    for (const KvTile& tile : planned_.partition.tiles) {
      for (int32_t rank = 0; rank < program_.num_ranks(); ++rank) {
        const int32_t first = rank * program_.attention().num_kv_heads;
        const HeadRange part = {
            std::max(tile.kv_heads.begin - first, 0),
            std::min(tile.kv_heads.end - first, program_.attention().num_kv_heads)};
        if (tile.worker_idx != worker_idx || part.begin >= part.end) continue;
        worker.parts.push_back({rank, part, tile.blocks});
        configs.push_back({.core = program_.attention_core(rank, part, tile.blocks.count()),
                           .epoch = 1,
                           .dtype = DType::kF32,
                           .total_blocks = kNumBlocks});
        if (transport == TransportKind::kCudaP2p) configs.back().core.overlap = overlaps();
      }
    }
    if (configs.empty()) return;
    worker.process = std::make_unique<test::WorkerProcess>(transport, std::move(configs));
    workers_.push_back(std::move(worker));
  }

  const ModelProgram& program_;
  PlannedPartition planned_;
  std::vector<Worker> workers_;
  ThreadPool pool_{1};
};

// A runner with a thread for each rank.
class Runner {
 public:
  Runner(const ModelProgram& program,
         const Golden& golden,
         const Attention& attention,
         const BlockLanes& lanes)
      : pools_(program.ranks.size()),
        streams_(make_streams()),
        runner_(program, golden, attention, lanes, streams_) {}
  test::GoldenRunner* operator->() { return &runner_; }

 private:
  std::vector<StreamView> make_streams() {
    std::vector<StreamView> streams;
    for (std::unique_ptr<ThreadPool>& pool : pools_) {
      pool = std::make_unique<ThreadPool>(1);
      streams.emplace_back(*pool);
    }
    return streams;
  }

  std::vector<std::unique_ptr<ThreadPool>> pools_;
  std::vector<StreamView> streams_;
  test::GoldenRunner runner_;
};

void expect_golden(const ModelProgram& program,
                   const Golden& golden,
                   const Attention& attention,
                   const BlockLanes& lanes) {
  Runner runner(program, golden, attention, lanes);
  ASSERT_NO_FATAL_FAILURE(runner->run());
  double worst = 0;
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    ASSERT_EQ(runner->prompt_logits(i).size(), golden.logits[i].size());
    worst = std::max(worst, relative_error(runner->prompt_logits(i), golden.logits[i]));
    EXPECT_EQ(runner->generated(i), golden.greedy[i]) << "prompt " << i;
  }
  EXPECT_LT(worst, 1e-5);
  ::testing::Test::RecordProperty("logit_error", std::to_string(worst));
  std::printf("logits differ by at most %.2e of their range\n", worst);
}

class OffloadGolden : public ::testing::TestWithParam<std::string> {
 protected:
  OffloadGolden() : folder_(test::fixture_path("models/" + GetParam())) {}

  void expect_offloaded(TransportKind transport,
                        int32_t num_ranks,
                        int32_t num_workers,
                        PartitionKind kind = PartitionKind::kAuto) {
    const ModelProgram program = test::load_fixture(folder_, num_ranks, kMaxTokens);
    Offloaded workers(program, transport, num_workers, kind);
    expect_golden(program, read_golden(folder_), workers.connect(), workers.lanes());
  }
  void expect_colocated(const RewriteOptions& rewrites) {
    const ModelProgram program = test::load_fixture(folder_, 1, kMaxTokens, rewrites);
    ThreadPool pool(2);
    Attention attention;
    attention.push_back(std::make_unique<LocalAttention>(
        program.attention_core(0, {0, program.num_kv_heads()}, kNumBlocks), StreamView(pool)));
    expect_golden(program, read_golden(folder_), attention, {{kNumBlocks}});
  }
  // Whether the model's heads can be shared by so many ranks.
  [[nodiscard]] bool shares_heads(int32_t num_ranks) const {
    const ModelConfig config = read_model_config(folder_);
    const Graph graph = build_graph(config, DType::kF32);
    const auto& attrs = std::get<AttentionAttrs>(graph.node(graph.attention_nodes().front()).attrs);
    const int32_t kv = attrs.num_kv_heads;
    return attrs.num_heads % num_ranks == 0 && (kv % num_ranks == 0 || num_ranks % kv == 0);
  }

  std::filesystem::path folder_;
};

// What is computed over a quantised cache.
struct Outcome {
  std::vector<std::vector<float>> logits;
  std::vector<std::vector<int32_t>> generated;
};
Outcome run_all(const ModelProgram& program,
                const Golden& golden,
                const Attention& attention,
                const BlockLanes& lanes) {
  Runner runner(program, golden, attention, lanes);
  runner->run();
  Outcome outcome;
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    outcome.logits.push_back(runner->prompt_logits(i));
    outcome.generated.push_back(runner->generated(i));
  }
  return outcome;
}

// Codes and scales depend on their token alone: where blocks are split by head, offloaded logits
// are colocated ones bit for bit. Where sequences are split, partials merge in another order of f32
// sums, by which a later layer's code may fall on the other side: one step of it.
TEST_P(OffloadGolden, QuantisedCachesGiveWhatTheyGiveColocated) {
  const Golden golden = read_golden(folder_);
  for (const DType kv_dtype : {DType::kI8, DType::kF8E4M3}) {
    ModelProgram program = test::load_fixture(folder_, 1, kMaxTokens);
    program.kv_dtype = kv_dtype;
    // Worker processes are forked before there are threads.
    Offloaded by_head(program, TransportKind::kShm, 2, PartitionKind::kHead);
    Offloaded by_sequence(program, TransportKind::kTcp, 3, PartitionKind::kSequence);
    Outcome colocated;
    {
      ThreadPool pool(2);
      Attention attention;
      attention.push_back(std::make_unique<LocalAttention>(
          program.attention_core(0, {0, program.num_kv_heads()}, kNumBlocks), StreamView(pool)));
      colocated = run_all(program, golden, attention, {{kNumBlocks}});
    }
    const Outcome heads = run_all(program, golden, by_head.connect(), by_head.lanes());
    EXPECT_EQ(heads.logits, colocated.logits) << dtype_name(kv_dtype);
    EXPECT_EQ(heads.generated, colocated.generated) << dtype_name(kv_dtype);
    const Outcome parts = run_all(program, golden, by_sequence.connect(), by_sequence.lanes());
    EXPECT_EQ(parts.generated, colocated.generated) << dtype_name(kv_dtype);
    double worst = 0;
    for (size_t i = 0; i < golden.prompts.size(); ++i) {
      worst = std::max(worst, relative_error(parts.logits[i], colocated.logits[i]));
    }
    std::printf("%s: logits of parts differ by at most %.2e of their range\n",
                std::string(dtype_name(kv_dtype)).c_str(),
                worst);
    // 2e-4 where a code of int8 falls otherwise; a step of e4m3 is eight times as wide.
    EXPECT_LT(worst, kv_dtype == DType::kI8 ? 1e-3 : 8e-3) << dtype_name(kv_dtype);
  }
}

TEST_P(OffloadGolden, Colocated) {
  expect_colocated({});
}

TEST_P(OffloadGolden, ColocatedWithoutOneRewriteOrAnother) {
  RewriteOptions none;
  for (const std::string_view name : rewrite_names()) {
    SCOPED_TRACE(name);
    expect_colocated({.disabled = {std::string(name)}, .rates = {}, .workload = {}});
    none.disabled.emplace_back(name);
  }
  expect_colocated(none);
}

// Both ways to project q, k and v, whatever the cost model prefers for so small a model.
TEST_P(OffloadGolden, ColocatedWithEveryWayToProject) {
  RewriteOptions split;
  split.rates.launch_s = 0;
  split.rates.flop_per_s = split.rates.bytes_per_s = 1e3;
  expect_colocated(split);
  RewriteOptions fused;
  fused.rates.launch_s = 1;
  expect_colocated(fused);
}

TEST_P(OffloadGolden, TwoProcessesOverSharedMemory) {
  expect_offloaded(TransportKind::kShm, 1, 2);
}

TEST_P(OffloadGolden, ThreeProcessesOverTcp) {
  expect_offloaded(TransportKind::kTcp, 1, 3);
}

TEST_P(OffloadGolden, SequencesSplitOverThreeProcesses) {
  expect_offloaded(TransportKind::kShm, 1, 3, PartitionKind::kSequence);
}

TEST_P(OffloadGolden, HeadsAndSequencesSplitOverFiveProcesses) {
  expect_offloaded(TransportKind::kTcp, 1, 5, PartitionKind::kHeadSequence);
}

TEST_P(OffloadGolden, TwoProcessesWhoseDevicesSendThemselves) {
  expect_offloaded(TransportKind::kCudaP2p, 1, 2, PartitionKind::kHead);
}

TEST_P(OffloadGolden, TwoRanksAndThreeProcessesWhoseDevicesSendThemselves) {
  if (!shares_heads(2)) GTEST_SKIP() << "its heads cannot be shared by 2 ranks";
  expect_offloaded(TransportKind::kCudaP2p, 2, 3, PartitionKind::kHead);
}

TEST_P(OffloadGolden, ThreeProcessesWhoseDevicesShareSequences) {
  expect_offloaded(TransportKind::kCudaP2p, 1, 3, PartitionKind::kSequence);
}

TEST_P(OffloadGolden, FiveProcessesWhoseDevicesShareHeadsAndSequences) {
  expect_offloaded(TransportKind::kCudaP2p, 1, 5, PartitionKind::kHeadSequence);
}

TEST_P(OffloadGolden, RequestsSplitOverTwoProcesses) {
  expect_offloaded(TransportKind::kShm, 1, 2, PartitionKind::kRequest);
}

TEST_P(OffloadGolden, TwoRanksOfHeadsAndSequencesOverFiveProcesses) {
  if (!shares_heads(2)) GTEST_SKIP() << "its heads cannot be shared by 2 ranks";
  expect_offloaded(TransportKind::kShm, 2, 5, PartitionKind::kHeadSequence);
}

TEST_P(OffloadGolden, TwoRanksAndThreeProcesses) {
  if (!shares_heads(2)) GTEST_SKIP() << "its heads cannot be shared by 2 ranks";
  expect_offloaded(TransportKind::kShm, 2, 3);
}

TEST_P(OffloadGolden, FourRanksAndThreeProcesses) {
  if (!shares_heads(4)) GTEST_SKIP() << "its heads cannot be shared by 4 ranks";
  expect_offloaded(TransportKind::kShm, 4, 3);
}

std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::fixture_path("models"))) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A test name cannot have a dash.
std::string test_name(const ::testing::TestParamInfo<std::string>& fixture) {
  std::string name = fixture.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, OffloadGolden, ::testing::ValuesIn(fixture_names()), test_name);

}  // namespace
}  // namespace lamina
