// An attention worker's core on a GPU against one on the CPU: whole steps of two layers, with and
// without start().
#include <gtest/gtest.h>

#include "kernels/cuda/testing/device_tensor.h"
#include "worker/attention_core_testing.h"
#include "worker/gpu_attention_core.h"

namespace lamina {
namespace {

using kernels::TestTensor;

constexpr int32_t kHeads = 4;
constexpr int32_t kKvHeads = 2;
constexpr int32_t kHeadDim = 64;

AttentionCoreConfig config_of(DType dtype, bool overlap, bool shares_heads = false) {
  return {.kv = {.num_layers = 2,
                 .num_kv_heads = kKvHeads,
                 .head_dim = kHeadDim,
                 .value_dim = kHeadDim,
                 .block_size = 16,
                 .dtype = dtype},
          .q_dtype = dtype,
          .num_blocks = 16,
          .num_heads = kHeads,
          .max_sequences = 2,
          .max_tokens = 48,
          .max_blocks_per_sequence = 8,
          .num_micro_batches = 1,
          .overlap = overlap,
          .shares_heads = shares_heads,
          .layers = {{.scale = 0.3F}, {.scale = 0.3F, .window = 20, .sinks = {1, 0, -1, 2}}}};
}

// Two sequences come, then get one token each, step by step; the second has no cached keys first.
// Where heads are shared, others hold a block of the first and all of the second.
std::vector<wire::AttentionPlan> plans(bool shares_heads) {
  std::vector<wire::AttentionPlan> plans(1);
  plans[0].sequences = {{.num_tokens = 33, .num_new_blocks = 3, .starts = 1}};
  plans[0].new_blocks = {5, shares_heads ? kNoBlock : 2, 9};
  for (uint32_t step = 0; step < 4; ++step) {
    wire::AttentionPlan& plan = plans.emplace_back();
    const bool starts = step == 0;
    plan.sequences = {{.first_position = 33 + step, .num_tokens = 1},
                      {.slot = 1,
                       .first_position = step,
                       .num_tokens = 1,
                       .num_new_blocks = starts ? 1U : 0U,
                       .starts = starts ? 1U : 0U}};
    if (starts) plan.new_blocks = {shares_heads ? kNoBlock : 7};
  }
  return plans;
}

// The outputs of all steps and layers; of partials also their lse.
std::vector<TestTensor> run(AttentionCore& core,
                            std::span<const wire::AttentionPlan> plans,
                            bool starts) {
  Rng rng(3);
  const DType dtype = core.config().q_dtype;
  std::vector<TestTensor> outs;
  const bool shares_heads = core.config().shares_heads;
  for (const wire::AttentionPlan& plan : plans) {
    throw_if_error(core.begin_step(plan));
    const int64_t num_tokens = core.num_tokens(0);
    for (int32_t layer = 0; layer < 2; ++layer) {
      const auto random = [&](int64_t num_heads) {
        return TestTensor::random(dtype, {num_tokens, num_heads, kHeadDim}, rng);
      };
      const TestTensor q = random(kHeads);
      const TestTensor k = random(kKvHeads);
      const TestTensor v = random(kKvHeads);
      const TensorView out = outs.emplace_back(DType::kF32, q.view().shape).view();
      if (starts) throw_if_error(core.start(0, layer, q.view()));
      throw_if_error(core.append(0, layer, k.view(), v.view()));
      TensorView lse;
      if (shares_heads) lse = outs.emplace_back(DType::kF32, Shape{num_tokens, kHeads}).view();
      throw_if_error(core.attend(0, layer, q.view(), out, lse));
    }
  }
  return outs;
}

std::vector<TestTensor> run(AttentionCore& core, bool starts) {
  return run(core, plans(core.config().shares_heads), starts);
}

class AttentionCoreOnGpu : public kernels::CudaTest {
 protected:
  [[nodiscard]] std::vector<TestTensor> run_on_gpu(const AttentionCoreConfig& config,
                                                   bool starts) const {
    GpuAttentionCore core(config, stream());
    return run(core, starts);
  }
};

TEST_F(AttentionCoreOnGpu, StartsAttentionBeforeKeysAreThere) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    ThreadPool pool(1);
    AttentionCore on_cpu(config_of(dtype, true), StreamView(pool));
    const std::vector<TestTensor> expected = run(on_cpu, true);
    const std::vector<TestTensor> started = run_on_gpu(config_of(dtype, true), true);
    const std::vector<TestTensor> not_started = run_on_gpu(config_of(dtype, true), false);
    const std::vector<TestTensor> without_overlap = run_on_gpu(config_of(dtype, false), false);
    const float rounding = dtype == DType::kBF16 ? 1.0F / 64 : 1e-5F;
    const float magnitude = rounding / kernels::tolerance(DType::kF32);
    for (size_t i = 0; i < expected.size(); ++i) {
      const std::string what = fmt::format("{} call {}", dtype_name(dtype), i);
      kernels::expect_near(started[i], expected[i], magnitude, what);
      kernels::expect_near(without_overlap[i], expected[i], magnitude, what);
      // Whether q came first changes no bit.
      EXPECT_EQ(not_started[i], started[i]) << what;
    }
  }
}

TEST_F(AttentionCoreOnGpu, SharesHeadsAsTheCpuDoes) {
  for (const bool overlap : {false, true}) {
    const AttentionCoreConfig config = config_of(DType::kBF16, overlap, /*shares_heads=*/true);
    ThreadPool pool(1);
    AttentionCore on_cpu(config, StreamView(pool));
    const std::vector<TestTensor> expected = run(on_cpu, overlap);
    const std::vector<TestTensor> actual = run_on_gpu(config, overlap);
    for (size_t i = 0; i < expected.size(); ++i) {
      kernels::expect_near(actual[i],
                           expected[i],
                           1.0F / 64 / kernels::tolerance(DType::kF32),
                           fmt::format("{} call {}", overlap ? "in phases" : "at once", i));
    }
  }
}

// Tables stay on the GPU, and steps bring what is new.
TEST_F(AttentionCoreOnGpu, FollowsSequencesAsTheCpuDoes) {
  AttentionCoreConfig config = config_of(DType::kF32, /*overlap=*/false);
  config.max_sequences = 5;
  config.num_blocks = 5 * 7;
  config.max_blocks_per_sequence = 7;
  RandomPlans sequences(config, 5);
  std::vector<wire::AttentionPlan> plans;
  for (int step = 0; step < 120; ++step) plans.push_back(sequences.next());
  ThreadPool pool(1);
  AttentionCore on_cpu(config, StreamView(pool));
  GpuAttentionCore on_gpu(config, stream());
  const std::vector<TestTensor> expected = run(on_cpu, plans, false);
  const std::vector<TestTensor> actual = run(on_gpu, plans, false);
  for (size_t i = 0; i < expected.size(); ++i) {
    kernels::expect_near(
        actual[i], expected[i], 1e-5F / kernels::tolerance(DType::kF32), fmt::format("call {}", i));
  }
}

}  // namespace
}  // namespace lamina
