#include "convert/min_cut.h"

#include <gtest/gtest.h>

#include <optional>

#include "base/rng.h"

namespace lamina {
namespace {

// A random problem in which values are numbered in topological order.
CutProblem random_problem(Rng& rng, size_t num_values) {
  CutProblem problem{std::vector<CutValue>(num_values),
                     std::vector<bool>(num_values),
                     std::vector<bool>(num_values)};
  for (size_t i = 0; i < num_values; ++i) {
    problem.values[i].weight = static_cast<int64_t>(rng.next_below(5));
    for (size_t consumer = i + 1; consumer < num_values; ++consumer) {
      if (rng.next_below(3) != 0) continue;
      problem.values[i].consumers.push_back(static_cast<int32_t>(consumer));
    }
  }
  // Bind one value after with all that follows from it, one before with all that it follows from.
  const size_t middle = num_values / 2;
  problem.after[middle + rng.next_below(num_values - middle)] = true;
  for (size_t i = 0; i < num_values; ++i) {
    if (!problem.after[i]) continue;
    for (const int32_t c : problem.values[i].consumers)
      problem.after[static_cast<size_t>(c)] = true;
  }
  const size_t bound = rng.next_below(middle);
  if (!problem.after[bound]) problem.before[bound] = true;
  for (size_t i = num_values; i-- > 0;) {
    for (const int32_t c : problem.values[i].consumers) {
      if (problem.before[static_cast<size_t>(c)]) problem.before[i] = true;
    }
  }
  return problem;
}

bool is_allowed(const CutProblem& problem, const std::vector<bool>& before) {
  for (size_t i = 0; i < before.size(); ++i) {
    if (problem.before[i] && !before[i]) return false;
    if (problem.after[i] && before[i]) return false;
    for (const int32_t c : problem.values[i].consumers) {
      if (before[static_cast<size_t>(c)] && !before[i]) return false;
    }
  }
  return true;
}

struct BruteForce {
  int64_t least = 0;
  std::vector<bool> before;  // union of all divisions of that weight
};

BruteForce try_all(const CutProblem& problem) {
  const size_t num_values = problem.values.size();
  std::optional<BruteForce> best;
  for (uint32_t bits = 0; bits < (1U << num_values); ++bits) {
    std::vector<bool> before(num_values);
    for (size_t i = 0; i < num_values; ++i) before[i] = ((bits >> i) & 1U) != 0;
    if (!is_allowed(problem, before)) continue;
    int64_t weight = 0;
    for (size_t i = 0; i < num_values; ++i) {
      bool kept = false;
      for (const int32_t c : problem.values[i].consumers) {
        kept = kept || (before[i] && !before[static_cast<size_t>(c)]);
      }
      weight += kept ? problem.values[i].weight : 0;
    }
    if (!best || weight < best->least) best = BruteForce{weight, before};
    if (weight > best->least) continue;
    for (size_t i = 0; i < num_values; ++i) best->before[i] = best->before[i] || before[i];
  }
  return *best;
}

TEST(MinCutTest, IsTheLargestLeastCutOnEverySmallGraph) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Rng rng(seed);
    const CutProblem problem = random_problem(rng, 4 + rng.next_below(8));
    const BruteForce expected = try_all(problem);
    const std::vector<bool> before = latest_min_cut(problem);
    ASSERT_EQ(cut_weight(problem, before), expected.least);
    ASSERT_EQ(before, expected.before);
  }
}

// Bytes per token stand for bytes of a batch: one slicing serves every batch size.
TEST(MinCutTest, ScaledWeightsGiveTheSameCut) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Rng rng(seed);
    CutProblem problem = random_problem(rng, 40);
    const std::vector<bool> for_one = latest_min_cut(problem);
    for (CutValue& value : problem.values) value.weight *= 1024;
    ASSERT_EQ(latest_min_cut(problem), for_one);
  }
}

TEST(MinCutDeathTest, ContradictionsAreABug) {
  CutProblem problem{{{1, {1}}, {1, {}}}, {true, false}, {true, true}};
  EXPECT_DEATH(latest_min_cut(problem), "bound before and after");
  problem.before = {false, true};
  problem.after = {false, false};
  EXPECT_DEATH(latest_min_cut(problem), "bound before, its input not");
  problem.before = {false, false};
  problem.after = {true, false};
  EXPECT_DEATH(latest_min_cut(problem), "bound after, its consumer not");
}

}  // namespace
}  // namespace lamina
