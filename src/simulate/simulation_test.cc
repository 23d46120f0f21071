// Thousands of scenarios, each from its seed. One that fails is replayed, and told, by
//   LAMINA_SIM_SEED=<seed> lamina_simulate_test --gtest_filter='*TheSeedOfTheEnvironment'
#include "simulate/simulation.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace lamina::simulate {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kNumSeeds = 500;
#else
constexpr uint64_t kNumSeeds = 10'000;
#endif
constexpr uint64_t kNumShards = 20;

class Seeds : public testing::TestWithParam<uint64_t> {};

TEST_P(Seeds, EveryRequestGetsItsTokens) {
  for (uint64_t seed = GetParam(); seed < kNumSeeds; seed += kNumShards) {
    const Outcome outcome = simulate(draw_scenario(seed));
    ASSERT_TRUE(outcome.status.ok())
        << "seed " << seed << ": " << outcome.status.message()
        << "\nreplay: LAMINA_SIM_SEED=" << seed
        << " lamina_simulate_test --gtest_filter='*TheSeedOfTheEnvironment'";
  }
}

INSTANTIATE_TEST_SUITE_P(Simulation, Seeds, testing::Range<uint64_t>(0, kNumShards));

// A history that nothing disturbs would prove little.
TEST(Simulation, TheSeedsAreHardOnIt) {
  uint64_t num_preempted = 0;
  uint64_t num_reopened = 0;
  uint64_t num_steps = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const Outcome outcome = simulate(draw_scenario(seed));
    num_preempted += outcome.num_preemptions > 0 ? 1 : 0;
    num_reopened += outcome.num_sessions > 1 ? 1 : 0;
    num_steps += outcome.num_steps;
  }
  EXPECT_GT(num_preempted, 20U);
  EXPECT_GT(num_reopened, 20U);
  EXPECT_GT(num_steps, 2000U);
}

TEST(Simulation, TheSeedGivesTheHistory) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::string first;
    std::string second;
    simulate(draw_scenario(seed), [&](const std::string& line) { first += line; });
    simulate(draw_scenario(seed), [&](const std::string& line) { second += line; });
    EXPECT_EQ(first, second) << "seed " << seed;
  }
}

TEST(Simulation, TheSeedOfTheEnvironment) {
  const char* seed = std::getenv("LAMINA_SIM_SEED");
  if (seed == nullptr) GTEST_SKIP() << "LAMINA_SIM_SEED is not set";
  const Scenario scenario = draw_scenario(std::stoull(seed));
  fmt::print("{}\n", scenario.to_string());
  const Outcome outcome =
      simulate(scenario, [](const std::string& line) { fmt::print("{}\n", line); });
  fmt::print("{} events, {} steps, {} tokens, {} preemptions, {} sessions, ended at {}\n",
             outcome.num_events,
             outcome.num_steps,
             outcome.num_tokens,
             outcome.num_preemptions,
             outcome.num_sessions,
             to_text(outcome.end));
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
}

}  // namespace
}  // namespace lamina::simulate
