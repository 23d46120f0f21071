#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "kernels/cuda/testing/device_tensor.h"
#include "kernels/ref/sample.h"
#include "kernels/sample.h"

namespace lamina::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TestTensor row_of(const std::vector<float>& logits) {
  TestTensor row(DType::kF32, {1, static_cast<int64_t>(logits.size())});
  std::copy(logits.begin(), logits.end(), row.view().as<float>());
  return row;
}

std::span<const float> span_of(const TestTensor& logits, int64_t row) {
  return {logits.view().row<float>(row), static_cast<size_t>(logits.view().shape[1])};
}

class SampleGpu : public CudaTest {
 protected:
  [[nodiscard]] std::vector<SampledToken> run(const TestTensor& logits,
                                              const std::vector<SampleRow>& rows) const {
    const DeviceTensor device(logits);
    std::vector<SampledToken> out(rows.size());
    const Status status = sample(device.view(), rows, out, stream());
    EXPECT_TRUE(status.ok()) << status.to_string();
    return out;
  }
  [[nodiscard]] SampledToken run_one(const std::vector<float>& logits, const SampleRow& row) const {
    return run(row_of(logits), {row})[0];
  }
  // The ids that come up over many seeds.
  [[nodiscard]] std::vector<int32_t> reachable(const std::vector<float>& logits,
                                               SampleRow row) const {
    constexpr size_t kDraws = 300;
    TestTensor all(DType::kF32,
                   {static_cast<int64_t>(kDraws), static_cast<int64_t>(logits.size())});
    std::vector<SampleRow> rows;
    for (size_t i = 0; i < kDraws; ++i) {
      std::copy(logits.begin(), logits.end(), all.view().row<float>(static_cast<int64_t>(i)));
      row.seed = i;
      rows.push_back(row);
    }
    std::vector<int32_t> ids;
    for (const SampledToken& token : run(all, rows)) ids.push_back(token.id);
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
  }
};

TEST_F(SampleGpu, ArgMaxTakesTheSmallestIdAndNeverNan) {
  const SampleRow greedy = {.temperature = 0.0F};
  EXPECT_EQ(run_one({1, 3, 3, 2}, greedy).id, 1);
  EXPECT_EQ(run_one({NAN, -5, NAN, -6}, greedy).id, 1);
  EXPECT_EQ(run_one({-kInfinity, -1, -kInfinity}, greedy).id, 1);
  EXPECT_EQ(run_one({0, kInfinity, 1}, greedy).id, 1);
  EXPECT_EQ(run_one({-1.0F, -0.0F, 0.0F}, greedy).id, 1);
  std::vector<float> wide(5000, -2.0F);
  wide[4777] = -1.0F;
  wide[4999] = -1.0F;
  EXPECT_EQ(run_one(wide, greedy).id, 4777);
}

TEST_F(SampleGpu, TopKResolvesTiesBySmallerId) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = 2}), (Ids{1, 2}));
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = 4}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = 1}), (Ids{1}));
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = 99}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(reachable(std::vector<float>(1000, 1.0F), {.top_k = 3}), (Ids{0, 1, 2}));
}

TEST_F(SampleGpu, TopPAndMinPKeepWhatTheyShould) {
  using Ids = std::vector<int32_t>;
  const std::vector<float> quarters(4, 0.0F);
  EXPECT_EQ(reachable(quarters, {.top_p = 0.5F}), (Ids{0, 1}));
  EXPECT_EQ(reachable(quarters, {.top_p = 0.51F}), (Ids{0, 1, 2}));
  EXPECT_EQ(reachable(quarters, {.top_p = 1e-6F}), (Ids{0}));
  EXPECT_EQ(reachable({0, 9, 0, 0}, {.top_p = 0.9F}), (Ids{1}));
  // top-p is taken of what top-k leaves: half of three equals needs two.
  EXPECT_EQ(reachable(quarters, {.top_p = 0.5F, .top_k = 3}), (Ids{0, 1}));
  EXPECT_EQ(reachable(quarters, {.top_p = 0.99F, .top_k = 3}), (Ids{0, 1, 2}));
  const float half = std::log(0.5F);
  EXPECT_EQ(reachable({0, half, 2 * half, 0}, {.min_p = 0.4F}), (Ids{0, 1, 3}));
  EXPECT_EQ(reachable({0, half, 2 * half, 0}, {.min_p = 1.0F}), (Ids{0, 3}));
  EXPECT_EQ(reachable({0, half, 2 * half, 0}, {.top_k = 3, .min_p = 0.6F}), (Ids{0, 3}));
}

// Logits and parameters of a step of many rows, as the CPU's test draws them.
struct Step {
  TestTensor logits;
  std::vector<SampleRow> rows;
  std::vector<int32_t> prompt = {1, 2, 3, 5, 8};
  std::vector<int32_t> generated = {3, 3, 7, 1};
  std::vector<int32_t> forbidden = {0, 4};
  std::vector<std::pair<int32_t, float>> bias = {{6, 2.0F}};

  Step(int64_t num_rows, int64_t vocab_size, uint64_t seed) {
    Rng rng(seed);
    logits = TestTensor::random(DType::kF32, {num_rows, vocab_size}, rng, 6.0F);
    for (int64_t s = 0; s < num_rows; ++s) rows.push_back(make_row(rng));
  }
  // Its rows point into it.
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
  ~Step() = default;

 private:
  SampleRow make_row(Rng& rng) const {
    SampleRow row;
    row.seed = rng.next_u64();
    row.temperature = rng.next_below(8) == 0 ? 0.0F : 0.2F + 2.0F * rng.next_float();
    if (rng.next_below(2) == 0) row.top_k = static_cast<int32_t>(1 + rng.next_below(40));
    if (rng.next_below(2) == 0) row.top_p = 0.05F + 0.95F * rng.next_float();
    if (rng.next_below(3) == 0) row.min_p = rng.next_float();
    if (rng.next_below(2) == 0) {
      row.presence_penalty = 1.5F;
      row.frequency_penalty = -0.5F;
      row.repetition_penalty = 1.3F;
    }
    row.num_logprobs = static_cast<int32_t>(rng.next_below(9)) - 1;
    row.prompt_ids = prompt;
    row.generated_ids = generated;
    if (rng.next_below(2) == 0) row.forbidden_ids = forbidden;
    if (rng.next_below(2) == 0) row.logit_bias = bias;
    return row;
  }
};

TEST_F(SampleGpu, AgreesWithReference) {
  for (const int64_t vocab_size : {10, 97, 512, 3001}) {
    const Step step(64, vocab_size, static_cast<uint64_t>(vocab_size));
    const std::vector<SampledToken> actual = run(step.logits, step.rows);
    for (size_t s = 0; s < step.rows.size(); ++s) {
      const SampledToken expected =
          ref::sample(span_of(step.logits, static_cast<int64_t>(s)), step.rows[s]);
      ASSERT_EQ(actual[s].id, expected.id) << "row " << s << " of " << vocab_size;
      ASSERT_NEAR(actual[s].logprob, expected.logprob, 1e-5) << "row " << s;
      ASSERT_EQ(actual[s].top_logprobs.size(), expected.top_logprobs.size()) << "row " << s;
      for (size_t i = 0; i < expected.top_logprobs.size(); ++i) {
        ASSERT_EQ(actual[s].top_logprobs[i].id, expected.top_logprobs[i].id) << "row " << s;
        const float wanted = expected.top_logprobs[i].logprob;
        if (std::isinf(wanted)) {
          ASSERT_EQ(actual[s].top_logprobs[i].logprob, wanted) << "row " << s;
        } else {
          ASSERT_NEAR(actual[s].top_logprobs[i].logprob, wanted, 1e-5) << "row " << s;
        }
      }
    }
  }
}

// The same seed gives the same token on both, but where probabilities differ in their last bits.
TEST_F(SampleGpu, DrawsAsTheCpuDoes) {
  ThreadPool pool(2);
  constexpr int64_t kRows = 48;
  const Step step(kRows, 20011, 77);
  TestTensor copy_of_logits = step.logits;
  std::vector<SampledToken> expected(step.rows.size());
  ASSERT_TRUE(sample(copy_of_logits.view(), step.rows, expected, StreamView(pool)).ok());
  const std::vector<SampledToken> actual = run(step.logits, step.rows);
  int num_different = 0;
  for (size_t s = 0; s < step.rows.size(); ++s) num_different += actual[s].id != expected[s].id;
  EXPECT_LE(num_different, 1);
}

TEST_F(SampleGpu, FollowsTheDistribution) {
  constexpr size_t kDraws = 4000;
  const std::vector<float> logits = {0.0F, 1.0F, 2.0F, -1.0F, NAN, 0.5F, -kInfinity};
  TestTensor all(DType::kF32, {static_cast<int64_t>(kDraws), static_cast<int64_t>(logits.size())});
  std::vector<SampleRow> rows;
  for (size_t i = 0; i < kDraws; ++i) {
    std::copy(logits.begin(), logits.end(), all.view().row<float>(static_cast<int64_t>(i)));
    rows.push_back({.temperature = 0.5F, .seed = i});
  }
  std::vector<double> counts(logits.size());
  for (const SampledToken& token : run(all, rows)) ++counts[static_cast<size_t>(token.id)];
  double total = 0.0;
  for (const float logit : logits) total += std::isfinite(logit) ? std::exp(double{logit} * 2) : 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double p = std::isfinite(logits[i]) ? std::exp(double{logits[i]} * 2) / total : 0.0;
    const double expected = p * static_cast<double>(kDraws);
    // Four and a half standard deviations.
    EXPECT_LE(std::fabs(counts[i] - expected), 4.5 * std::sqrt(expected * (1 - p))) << "id " << i;
  }
}

TEST_F(SampleGpu, ARowWithoutFiniteLogitsGivesNoTokenAndHarmsNoOther) {
  for (const float value : {NAN, -kInfinity, kInfinity}) {
    EXPECT_EQ(run_one({value, NAN, value}, {.num_logprobs = 2}).id, kNoToken);
  }
  TestTensor logits(DType::kF32, {2, 3});
  for (int64_t i = 0; i < 3; ++i) logits.set(i, NAN);
  logits.set(5, 9.0F);
  const SampleRow greedy = {.temperature = 0.0F, .num_logprobs = 1};
  const std::vector<SampledToken> tokens = run(logits, {greedy, greedy});
  EXPECT_EQ(tokens[0].id, kNoToken);
  EXPECT_TRUE(tokens[0].top_logprobs.empty());
  EXPECT_EQ(tokens[1].id, 2);
}

TEST_F(SampleGpu, LogProbabilitiesAgreeWithTheDefinition) {
  Rng rng(3);
  const TestTensor logits = TestTensor::random(DType::kF32, {3, 700}, rng, 5.0F);
  const std::vector<int32_t> targets = {0, 699, 7};
  std::vector<SampledToken> out(3);
  const DeviceTensor device(logits);
  ASSERT_TRUE(log_probabilities(device.view(), targets, 5, out, stream()).ok());
  for (size_t s = 0; s < 3; ++s) {
    const std::span<const float> row = span_of(logits, static_cast<int64_t>(s));
    const SampledToken greedy = ref::sample(row, {.temperature = 0.0F, .num_logprobs = 700});
    EXPECT_EQ(out[s].id, targets[s]);
    ASSERT_EQ(out[s].top_logprobs.size(), 5U);
    for (size_t i = 0; i < greedy.top_logprobs.size(); ++i) {
      const TokenLogprob& expected = greedy.top_logprobs[i];
      if (expected.id == targets[s]) {
        EXPECT_NEAR(out[s].logprob, expected.logprob, 1e-5);
      }
      if (i >= 5) continue;
      EXPECT_EQ(out[s].top_logprobs[i].id, expected.id);
      EXPECT_NEAR(out[s].top_logprobs[i].logprob, expected.logprob, 1e-5);
    }
  }
  // Fewer ids than are asked for, and none.
  const std::vector<int32_t> one = {2};
  const DeviceTensor small(row_of({0, 1, 2, 3}));
  ASSERT_TRUE(log_probabilities(small.view(), one, 99, std::span(out).first(1), stream()).ok());
  EXPECT_EQ(out[0].top_logprobs.size(), 4U);
  ASSERT_TRUE(log_probabilities(small.view(), one, 0, std::span(out).first(1), stream()).ok());
  EXPECT_TRUE(out[0].top_logprobs.empty());
}

}  // namespace
}  // namespace lamina::kernels
