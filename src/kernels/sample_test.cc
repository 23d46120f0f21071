#include "kernels/sample.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/ref/sample.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Samples one row.
Result<SampledToken> sample_one(std::vector<float> logits, const SampleRow& row) {
  ThreadPool pool(1);
  SampledToken token;
  const Status status =
      sample({logits.data(), DType::kF32, {1, static_cast<int64_t>(logits.size())}},
             std::span(&row, 1),
             std::span(&token, 1),
             StreamView(pool));
  if (!status.ok()) return status;
  return token;
}

int32_t sampled_id(const std::vector<float>& logits, const SampleRow& row) {
  return sample_one(logits, row).value().id;
}

// How often each id comes up over `num_draws` seeds.
std::vector<int> count_draws(const std::vector<float>& logits, SampleRow row, int num_draws) {
  std::vector<int> counts(logits.size(), 0);
  for (int i = 0; i < num_draws; ++i) {
    row.seed = static_cast<uint64_t>(i);
    ++counts[static_cast<size_t>(sampled_id(logits, row))];
  }
  return counts;
}

double chi_square(const std::vector<int>& counts, const std::vector<double>& probabilities) {
  double total = 0.0;
  for (const int count : counts) total += count;
  double sum = 0.0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (probabilities[i] == 0.0) {
      EXPECT_EQ(counts[i], 0) << "id " << i;
      continue;
    }
    const double expected = total * probabilities[i];
    sum += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return sum;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double total = 0.0;
  for (const float logit : logits) total += p.emplace_back(std::exp(double{logit} / temperature));
  for (double& x : p) x /= total;
  return p;
}

TEST(Sample, ArgMaxTakesTheSmallestIdAndNeverNan) {
  for_each_target([&] {
    const SampleRow greedy = {.temperature = 0.0F};
    EXPECT_EQ(sampled_id({1, 3, 3, 2}, greedy), 1);
    EXPECT_EQ(sampled_id({NAN, -5, NAN, -6}, greedy), 1);
    EXPECT_EQ(sampled_id({-kInfinity, -1, -kInfinity}, greedy), 1);
    EXPECT_EQ(sampled_id({0, kInfinity, 1}, greedy), 1);
    std::vector<float> wide(1000, -2.0F);
    wide[777] = -1.0F;
    EXPECT_EQ(sampled_id(wide, greedy), 777);
  });
}

TEST(Sample, NanIsNeverDrawn) {
  const std::vector<int> counts = count_draws({NAN, 0, NAN, 0, -kInfinity}, {}, 200);
  EXPECT_EQ(counts[0] + counts[2] + counts[4], 0);
}

TEST(Sample, FollowsTheDistribution) {
  const std::vector<float> logits = {0.0F, 1.0F, 2.0F, -1.0F, 0.5F, 1.5F};
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    const std::vector<int> counts = count_draws(logits, {.temperature = temperature}, 20000);
    // 0.999 quantile of chi-square with 5 degrees of freedom.
    EXPECT_LT(chi_square(counts, softmax(logits, double{temperature})), 20.5) << temperature;
  }
}

TEST(Sample, FollowsTheDistributionThatTopKLeaves) {
  const std::vector<float> logits = {0.0F, 1.0F, 2.0F, -1.0F, 0.5F, 1.5F};
  std::vector<double> kept = softmax({1.0F, 2.0F, 1.5F}, 1.0);
  const std::vector<int> counts = count_draws(logits, {.top_k = 3}, 20000);
  // 0.999 quantile with 2 degrees of freedom.
  EXPECT_LT(chi_square(counts, {0, kept[0], kept[1], 0, 0, kept[2]}), 13.8);
}

// The ids that can come up.
std::vector<int32_t> reachable(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<int32_t> ids;
  const std::vector<int> counts = count_draws(logits, row, 500);
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) ids.push_back(static_cast<int32_t>(i));
  }
  return ids;
}

TEST(Sample, TopKResolvesTiesBySmallerId) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = 2}), (Ids{1, 2}));
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = 4}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = 1}), (Ids{1}));
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = 99}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(reachable({1, 2, 2, 2, 1}, {.top_k = -1}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(reachable(std::vector<float>(100, 1.0F), {.top_k = 3}), (Ids{0, 1, 2}));
}

TEST(Sample, TopPKeepsTheShortestSufficientPrefix) {
  using Ids = std::vector<int32_t>;
  const std::vector<float> quarters(4, 0.0F);
  EXPECT_EQ(reachable(quarters, {.top_p = 0.5F}), (Ids{0, 1}));
  EXPECT_EQ(reachable(quarters, {.top_p = 0.51F}), (Ids{0, 1, 2}));
  EXPECT_EQ(reachable(quarters, {.top_p = 1e-6F}), (Ids{0}));
  EXPECT_EQ(reachable({0, 9, 0, 0}, {.top_p = 0.9F}), (Ids{1}));
  // top-p is taken of what top-k leaves: half of three equals needs two.
  EXPECT_EQ(reachable(quarters, {.top_p = 0.5F, .top_k = 3}), (Ids{0, 1}));
  // More ids than the first look at the vocabulary takes in.
  EXPECT_GT(reachable(std::vector<float>(5000, 0.0F), {.top_p = 0.9F}).back(), 4000);
}

TEST(Sample, MinPIsRelativeToTheMostProbable) {
  using Ids = std::vector<int32_t>;
  const float half = std::log(0.5F);
  EXPECT_EQ(reachable({0, half, 2 * half, 0}, {.min_p = 0.4F}), (Ids{0, 1, 3}));
  EXPECT_EQ(reachable({0, half, 2 * half, 0}, {.min_p = 1.0F}), (Ids{0, 3}));
  EXPECT_EQ(reachable({0, half, 2 * half, 0}, {.top_k = 3, .min_p = 0.6F}), (Ids{0, 3}));
}

TEST(Sample, PenaltiesBiasAndForbiddenIds) {
  const std::vector<int32_t> prompt = {0, 0};
  const std::vector<int32_t> generated = {1, 1, 2};
  const SampleRow base = {
      .temperature = 0.0F, .num_logprobs = 4, .prompt_ids = prompt, .generated_ids = generated};
  // Expected logits, in the order repetition, frequency, presence, bias.
  const auto expect_logits = [&](const SampleRow& row, const std::vector<float>& expected) {
    const SampledToken token = sample_one({2.0F, 4.0F, -1.0F, 1.0F}, row).value();
    const std::vector<double> p = softmax(expected, 1.0);
    ASSERT_EQ(token.top_logprobs.size(), 4U);
    for (const TokenLogprob& top : token.top_logprobs) {
      const double wanted = std::log(p[static_cast<size_t>(top.id)]);
      if (std::isinf(wanted)) {
        EXPECT_EQ(top.logprob, -kInfinity);
      } else {
        EXPECT_NEAR(top.logprob, wanted, 1e-5);
      }
    }
  };
  expect_logits(base, {2, 4, -1, 1});
  SampleRow row = base;
  row.repetition_penalty = 2.0F;
  expect_logits(row, {1, 2, -2, 1});
  row = base;
  row.frequency_penalty = 0.5F;
  expect_logits(row, {2, 3, -1.5F, 1});
  row = base;
  row.presence_penalty = 0.5F;
  expect_logits(row, {2, 3.5F, -1.5F, 1});
  row.repetition_penalty = 2.0F;
  row.frequency_penalty = 1.0F;
  expect_logits(row, {1, -0.5F, -3.5F, 1});
  const std::vector<std::pair<int32_t, float>> bias = {{3, 10.0F}, {0, -1.0F}};
  const std::vector<int32_t> forbidden = {1};
  row = base;
  row.logit_bias = bias;
  row.forbidden_ids = forbidden;
  expect_logits(row, {1, -kInfinity, -1, 11});
  EXPECT_EQ(sampled_id({2.0F, 4.0F, -1.0F, 1.0F}, row), 3);
  // Nothing of one row is left for the next.
  expect_logits(base, {2, 4, -1, 1});
}

TEST(Sample, LogprobsAreTakenBeforeTemperature) {
  const SampleRow row = {.temperature = 0.1F, .top_k = 1, .num_logprobs = 2};
  const std::vector<float> logits = {0.0F, 1.0F, 1.0F};
  const SampledToken token = sample_one(logits, row).value();
  const std::vector<double> p = softmax(logits, 1.0);
  EXPECT_EQ(token.id, 1);
  EXPECT_NEAR(token.logprob, std::log(p[1]), 1e-6);
  ASSERT_EQ(token.top_logprobs.size(), 2U);
  EXPECT_EQ(token.top_logprobs[0].id, 1);
  EXPECT_EQ(token.top_logprobs[1].id, 2);
  EXPECT_TRUE(sample_one(logits, {}).value().top_logprobs.empty());
}

TEST(Sample, ReplayDrawsTheSameAndTheNextDrawAnother) {
  const std::vector<float> flat(1000, 0.0F);
  std::vector<int32_t> generated;
  generated.reserve(20);
  for (int i = 0; i < 20; ++i) {
    generated.push_back(sampled_id(flat, {.seed = 9, .generated_ids = generated}));
  }
  for (size_t i = 0; i < 20; ++i) {
    const std::span<const int32_t> past(generated.data(), i);
    EXPECT_EQ(sampled_id(flat, {.seed = 9, .generated_ids = past}), generated[i]);
  }
  EXPECT_NE(generated[0], generated[1]);
  EXPECT_NE(sampled_id(flat, {.seed = 10}), generated[0]);
}

TEST(Sample, RowsAreIndependent) {
  Rng rng(1);
  const TestTensor logits = TestTensor::random(DType::kF32, {9, 700}, rng, 8.0F);
  std::vector<SampleRow> rows(9);
  for (size_t s = 0; s < rows.size(); ++s) {
    rows[s] = {
        .temperature = s % 3 == 0 ? 0.0F : 1.0F, .top_p = s % 2 == 0 ? 0.8F : 1.0F, .seed = s};
  }
  TestTensor copy = logits;
  std::vector<SampledToken> out(9);
  ThreadPool pool(3);
  ASSERT_TRUE(sample(copy.view(), rows, out, StreamView(pool)).ok());
  for (size_t s = 0; s < rows.size(); ++s) {
    const float* row = logits.view().row<float>(static_cast<int64_t>(s));
    EXPECT_EQ(out[s].id, sampled_id({row, row + 700}, rows[s])) << s;
  }
}

TEST(Sample, AgreesWithReference) {
  for_each_target([&] {
    const std::vector<int32_t> prompt = {1, 2, 3, 5, 8};
    const std::vector<int32_t> generated = {3, 3, 7, 1};
    const std::vector<int32_t> forbidden = {0, 4};
    const std::vector<std::pair<int32_t, float>> bias = {{6, 2.0F}};
    for (uint64_t seed = 0; seed < 400; ++seed) {
      Rng rng(seed);
      const auto vocab_size = static_cast<int64_t>(10 + rng.next_below(seed % 4 == 0 ? 3000 : 90));
      const TestTensor logits = TestTensor::random(DType::kF32, {1, vocab_size}, rng, 6.0F);
      SampleRow row;
      row.seed = seed;
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

      const float* data = logits.view().as<float>();
      const SampledToken expected = ref::sample({data, static_cast<size_t>(vocab_size)}, row);
      const SampledToken actual = sample_one({data, data + vocab_size}, row).value();
      ASSERT_EQ(actual.id, expected.id) << "seed " << seed;
      ASSERT_NEAR(actual.logprob, expected.logprob, 1e-5) << "seed " << seed;
      ASSERT_EQ(actual.top_logprobs.size(), expected.top_logprobs.size()) << "seed " << seed;
      for (size_t i = 0; i < actual.top_logprobs.size(); ++i) {
        ASSERT_EQ(actual.top_logprobs[i].id, expected.top_logprobs[i].id) << "seed " << seed;
      }
    }
  });
}

TEST(Sample, ARowWithoutFiniteLogitsGivesNoToken) {
  for (const float value : {NAN, -kInfinity, kInfinity}) {
    EXPECT_EQ(sample_one({value, NAN, value}, {})->id, kNoToken);
  }
  const std::vector<int32_t> all = {0, 1};
  EXPECT_EQ(sample_one({1, 2}, {.forbidden_ids = all})->id, kNoToken);
}

TEST(Sample, RefusesWhatDoesNotFit) {
  const std::vector<int32_t> high = {4};
  const std::vector<int32_t> low = {-1};
  const std::vector<std::pair<int32_t, float>> high_bias = {{4, 1.0F}};
  const std::vector<std::pair<int32_t, float>> nan_bias = {{0, NAN}};
  const std::vector<SampleRow> bad = {
      {.temperature = -1.0F},
      {.temperature = NAN},
      {.temperature = kInfinity},
      {.top_p = 0.0F},
      {.top_p = 1.5F},
      {.top_p = NAN},
      {.min_p = -0.1F},
      {.min_p = NAN},
      {.presence_penalty = NAN},
      {.frequency_penalty = kInfinity},
      {.repetition_penalty = 0.0F},
      {.num_logprobs = -2},
      {.logit_bias = high_bias},
      {.logit_bias = nan_bias},
      {.forbidden_ids = high},
      {.repetition_penalty = 1.1F, .prompt_ids = low},
      {.repetition_penalty = 1.1F, .generated_ids = high},
      {.frequency_penalty = 0.1F, .generated_ids = high},
      {.presence_penalty = 0.1F, .generated_ids = high},
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(sample_one({1, 2, 3, 4}, bad[i]).status().code(), StatusCode::kInvalidArgument) << i;
  }
  const std::vector<SampleRow> unread = {
      {.prompt_ids = low, .generated_ids = high},
      {.presence_penalty = 0.1F, .frequency_penalty = 0.1F, .prompt_ids = low},
  };
  for (size_t i = 0; i < unread.size(); ++i) {
    EXPECT_TRUE(sample_one({1, 2, 3, 4}, unread[i]).ok()) << i;
  }
  ThreadPool pool(1);
  const TestTensor logits(DType::kF32, {2, 4});
  std::vector<SampleRow> rows(2);
  std::vector<SampledToken> out(1);
  EXPECT_EQ(sample(logits.view(), rows, out, StreamView(pool)).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(sample(logits.view(), std::span(rows).first(1), out, StreamView(pool)).code(),
            StatusCode::kInvalidArgument);
}

TEST(LogProbabilities, AgreeWithTheDefinition) {
  Rng rng(3);
  const TestTensor logits = TestTensor::random(DType::kF32, {3, 50}, rng, 5.0F);
  const std::vector<int32_t> targets = {0, 49, 7};
  std::vector<SampledToken> out(3);
  ThreadPool pool(2);
  ASSERT_TRUE(log_probabilities(logits.view(), targets, 5, out, StreamView(pool)).ok());
  for (size_t s = 0; s < 3; ++s) {
    const float* row = logits.view().row<float>(static_cast<int64_t>(s));
    const std::vector<double> p = softmax({row, row + 50}, 1.0);
    EXPECT_EQ(out[s].id, targets[s]);
    EXPECT_NEAR(out[s].logprob, std::log(p[static_cast<size_t>(targets[s])]), 1e-5);
    ASSERT_EQ(out[s].top_logprobs.size(), 5U);
    for (size_t i = 1; i < 5; ++i) {
      EXPECT_LE(out[s].top_logprobs[i].logprob, out[s].top_logprobs[i - 1].logprob);
    }
    EXPECT_NEAR(
        out[s].top_logprobs[0].logprob, std::log(*std::max_element(p.begin(), p.end())), 1e-5);
  }
}

TEST(LogProbabilities, RefuseWhatDoesNotFit) {
  TestTensor logits(DType::kF32, {1, 4});
  std::vector<SampledToken> out(1);
  ThreadPool pool(1);
  const StreamView stream(pool);
  const std::vector<int32_t> high = {4};
  const std::vector<int32_t> good = {3};
  EXPECT_EQ(log_probabilities(logits.view(), high, 0, out, stream).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(log_probabilities(logits.view(), good, -1, out, stream).code(),
            StatusCode::kInvalidArgument);
  EXPECT_TRUE(log_probabilities(logits.view(), good, 99, out, stream).ok());
  EXPECT_EQ(out[0].top_logprobs.size(), 4U);
  logits.poison();
  EXPECT_TRUE(log_probabilities(logits.view(), good, 0, out, stream).ok());
  EXPECT_EQ(out[0].id, kNoToken);
}

}  // namespace
}  // namespace lamina::kernels
