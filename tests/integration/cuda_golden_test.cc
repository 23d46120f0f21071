// Every fixture model on a GPU, attention included. In f32, without TF32, ids are those of the
// independent golden and logits within 1e-5 of their range, as on the CPU. In bf16 the oracle is
// the CPU's own bf16: logits are within bf16's tolerance of it, and ids part only where two logits
// were closer than that. A router that chooses experts by rounded logits sends some tokens
// elsewhere, whose logits then are others: in models with experts most tokens agree. Where there
// are two GPUs, two ranks share each model that can be shared, held to the same golden. Over caches
// of codes the oracle is the CPU again.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "exec/device_weights.h"
#include "model/builder.h"
#include "model/model_files.h"
#include "support/fixture_model.h"
#include "support/golden_runner.h"
#include "support/paths.h"
#include "worker/local_attention.h"

namespace lamina {
namespace {

constexpr Device kDevice = {DeviceKind::kCuda, 0};

class CudaGolden : public ::testing::TestWithParam<std::string> {
 protected:
  // A model where it runs, through all prompts.
  struct Run {
    ModelProgram program;
    std::vector<std::unique_ptr<AttentionBackend>> attention;
    std::unique_ptr<test::GoldenRunner> runner;
  };
  static constexpr int32_t kNumRanks = 2;

  void SetUp() override {
    if (cuda::num_devices() == 0) GTEST_SKIP() << "no GPU";
    stream_ = cuda::make_stream(kDevice);
    golden_ = test::read_golden(folder());
  }
  // Whether ranks can share the model's heads.
  static bool shares_heads() {
    const Graph graph = build_graph(read_model_config(folder()), DType::kF32);
    const auto& attrs = std::get<AttentionAttrs>(graph.node(graph.attention_nodes().front()).attrs);
    return attrs.num_heads % kNumRanks == 0 &&
           (attrs.num_kv_heads % kNumRanks == 0 || kNumRanks % attrs.num_kv_heads == 0);
  }

  static std::filesystem::path folder() { return test::fixture_path("models/" + GetParam()); }
  [[nodiscard]] StreamView gpu() const { return cuda::view(stream_, kDevice); }
  [[nodiscard]] StreamView host() { return StreamView(pool_); }

  // A rank on each stream.
  void run(DType dtype, std::span<const StreamView> streams, Run& run) const {
    this->run(dtype, dtype, streams, run);
  }
  void run(DType dtype, DType kv_dtype, std::span<const StreamView> streams, Run& run) const {
    const auto num_ranks = static_cast<int32_t>(streams.size());
    run.program = test::load_fixture(folder(), num_ranks, test::kGoldenMaxTokens, {}, {}, dtype);
    run.program.kv_dtype = kv_dtype;
    const HeadRange kv_heads = {0, run.program.attention().num_kv_heads};
    for (int32_t rank = 0; rank < num_ranks; ++rank) {
      const StreamView stream = streams[static_cast<size_t>(rank)];
      ModelShard& shard = run.program.ranks[static_cast<size_t>(rank)];
      shard.weights = place_weights(shard.sliced.graph, std::move(shard.weights), stream);
      run.attention.push_back(std::make_unique<LocalAttention>(
          run.program.attention_core(rank, kv_heads, test::kFixtureBlocks), stream));
    }
    run.runner = std::make_unique<test::GoldenRunner>(
        run.program, golden_, run.attention, BlockLanes{{test::kFixtureBlocks}}, streams);
    run.runner->run();
  }

  void expect_golden(const Run& run) const {
    double worst = 0;
    for (size_t i = 0; i < golden_.prompts.size(); ++i) {
      EXPECT_EQ(run.runner->generated(i), golden_.greedy[i]) << "prompt " << i;
      worst =
          std::max(worst, test::relative_error(run.runner->prompt_logits(i), golden_.logits[i]));
    }
    EXPECT_LT(worst, 1e-5);
    std::printf("logits differ by at most %.2e of their range\n", worst);
  }

  test::Golden golden_;

 private:
  cuda::Stream stream_;
  ThreadPool pool_{1};
};

TEST_P(CudaGolden, InF32) {
  Run gpu_run;
  ASSERT_NO_FATAL_FAILURE(run(DType::kF32, std::array{gpu()}, gpu_run));
  expect_golden(gpu_run);
}

TEST_P(CudaGolden, InF32OnTwoGpus) {
  constexpr Device kSecond = {DeviceKind::kCuda, 1};
  if (cuda::num_devices() < kNumRanks) GTEST_SKIP() << "fewer than two GPUs";
  if (!shares_heads()) GTEST_SKIP() << "its heads cannot be shared by 2 ranks";
  const cuda::Stream second = cuda::make_stream(kSecond);
  Run both;
  ASSERT_NO_FATAL_FAILURE(run(DType::kF32, std::array{gpu(), cuda::view(second, kSecond)}, both));
  expect_golden(both);
}

// By token: the largest error of its logits as a share of their range.
std::vector<double> token_errors(const test::GoldenRunner& actual,
                                 const test::GoldenRunner& expected,
                                 const test::Golden& golden) {
  std::vector<double> errors;
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    const size_t vocab = actual.prompt_logits(i).size() / golden.prompts[i].size();
    const auto row = [vocab](const std::vector<float>& logits, size_t token) {
      const auto begin = logits.begin() + static_cast<ptrdiff_t>(token * vocab);
      return std::vector<float>(begin, begin + static_cast<ptrdiff_t>(vocab));
    };
    for (size_t token = 0; token < golden.prompts[i].size(); ++token) {
      errors.push_back(test::relative_error(row(actual.prompt_logits(i), token),
                                            row(expected.prompt_logits(i), token)));
    }
  }
  std::ranges::sort(errors);
  return errors;
}

bool has_experts(const Graph& graph) {
  return std::ranges::any_of(graph.nodes(),
                             [](const Node& node) { return node.kind == OpKind::kExperts; });
}

// Logits of prompts are within `tolerance` of the host's, by their range; in models with experts
// those of nine tenths of the tokens are. Ids part only where two logits were closer than the
// prompts', or `noise`: what a later token may differ by though they did not.
void expect_near(const test::GoldenRunner& actual,
                 const test::GoldenRunner& expected,
                 const test::Golden& golden,
                 bool has_experts,
                 double tolerance,
                 double noise = 0.0) {
  const std::vector<double> errors = token_errors(actual, expected, golden);
  std::printf("logits differ by at most %.2e of their range, nine tenths by %.2e, half by %.2e\n",
              errors.back(),
              errors[errors.size() * 9 / 10],
              errors[errors.size() / 2]);
  if (has_experts) {
    EXPECT_LT(errors[errors.size() * 9 / 10], 2 * tolerance);
    return;
  }
  EXPECT_LT(errors.back(), tolerance);
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    const std::vector<int32_t> ids = actual.generated(i);
    const auto parted = std::ranges::mismatch(ids, expected.generated(i));
    if (parted.in1 == ids.end()) continue;
    const auto at = static_cast<size_t>(parted.in1 - ids.begin());
    EXPECT_LT(actual.margins(i)[at], 2 * std::max(errors.back(), noise))
        << "prompt " << i << ", id " << at;
  }
}

TEST_P(CudaGolden, InBf16) {
  Run gpu_run;
  Run host_run;
  ASSERT_NO_FATAL_FAILURE(run(DType::kBF16, std::array{gpu()}, gpu_run));
  ASSERT_NO_FATAL_FAILURE(run(DType::kBF16, std::array{host()}, host_run));
  expect_near(*gpu_run.runner,
              *host_run.runner,
              golden_,
              has_experts(gpu_run.program.ranks.front().sliced.graph),
              0.05);
}

// Where f32 sums differ in their last bits, a code falls to the other side here and there.
TEST_P(CudaGolden, InF32OverCodes) {
  for (const auto& [kv_dtype, tolerance] :
       {std::pair{DType::kI8, 1e-2}, std::pair{DType::kF8E4M3, 4e-2}}) {
    SCOPED_TRACE(dtype_name(kv_dtype));
    Run gpu_run;
    Run host_run;
    ASSERT_NO_FATAL_FAILURE(run(DType::kF32, kv_dtype, std::array{gpu()}, gpu_run));
    ASSERT_NO_FATAL_FAILURE(run(DType::kF32, kv_dtype, std::array{host()}, host_run));
    expect_near(*gpu_run.runner,
                *host_run.runner,
                golden_,
                has_experts(gpu_run.program.ranks.front().sliced.graph),
                tolerance,
                tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         CudaGolden,
                         ::testing::ValuesIn(test::fixture_names()),
                         [](const ::testing::TestParamInfo<std::string>& fixture) {
                           std::string name = fixture.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace lamina
