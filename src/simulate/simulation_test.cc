// Thousands of scenarios, each from its seed. One that fails is replayed, and told, by
//   LAMINA_SIM_SEED=<seed> lamina_simulate_test --gtest_filter='*TheSeedOfTheEnvironment'
#include "simulate/simulation.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>

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
  uint64_t num_changed = 0;
  uint64_t num_stale = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Outcome outcome = simulate(draw_scenario(seed));
    num_changed += outcome.num_active_changes > 0 ? 1 : 0;
    num_stale += outcome.stale_messages.size();
    num_preempted += outcome.num_preemptions > 0 ? 1 : 0;
    num_reopened += outcome.num_sessions > 1 ? 1 : 0;
    num_steps += outcome.num_steps;
  }
  EXPECT_GT(num_preempted, 40U);
  EXPECT_GT(num_reopened, 40U);
  EXPECT_GT(num_steps, 4000U);
  EXPECT_GT(num_changed, 40U);
  EXPECT_GT(num_stale, 5U);
}

TEST(Simulation, TheSeedsHaveEveryRotation) {
  std::set<std::pair<int32_t, int32_t>> rotations;
  for (uint64_t seed = 0; seed < kNumSeeds; ++seed) {
    const Rotation rotation = draw_scenario(seed).rotation;
    rotations.insert({rotation.num_replicas, rotation.num_micro_batches});
  }
  EXPECT_EQ(rotations.size(), 52U);  // R = 1..8, n = 1..R + 2
}

// The first session is given up, the second gets a message of it, the third has peace.
Scenario with_stale_message(uint64_t seed, wire::MessageKind kind) {
  Scenario scenario = draw_scenario(seed);
  SessionSpec session = scenario.sessions.back();
  const Duration step_time =
      scenario.model.num_layers * (scenario.times.slice + scenario.times.attention +
                                   2 * (scenario.link.latency + scenario.link.jitter));
  scenario.sessions = {session, session, session};
  scenario.sessions[0].rebalanced_after = 8 * step_time;
  scenario.sessions[1].stale_message = StaleMessage{.kind = kind, .after = step_time};
  return scenario;
}

class EveryKind : public testing::TestWithParam<wire::MessageKind> {};

// Whoever reads it gives the session up; simulate() sees to it that no step ends with it.
TEST_P(EveryKind, OfMessageOfAnOldEpochIsRefused) {
  constexpr uint64_t kNumStaleSeeds = kNumSeeds / 100;
  uint64_t num_stale = 0;
  for (uint64_t seed = 0; seed < kNumStaleSeeds; ++seed) {
    std::string story;
    const Outcome outcome = simulate(with_stale_message(seed, GetParam()),
                                     [&](const std::string& line) { story += line + "\n"; });
    ASSERT_TRUE(outcome.status.ok()) << "seed " << seed << ": " << outcome.status.message();
    if (outcome.stale_messages.empty()) continue;
    ++num_stale;
    ASSERT_EQ(outcome.num_sessions, 3U) << "seed " << seed;
    ASSERT_NE(story.find("of epoch 1, expected 2"), std::string::npos) << "seed " << seed << "\n"
                                                                       << story;
  }
  EXPECT_GT(num_stale, kNumStaleSeeds / 20);
  fmt::print("{} messages of an old epoch were refused\n", num_stale);
}

INSTANTIATE_TEST_SUITE_P(Simulation,
                         EveryKind,
                         testing::Values(wire::MessageKind::kPlan,
                                         wire::MessageKind::kQ,
                                         wire::MessageKind::kKv,
                                         wire::MessageKind::kOut,
                                         wire::MessageKind::kStep,
                                         wire::MessageKind::kResult,
                                         wire::MessageKind::kAck,
                                         wire::MessageKind::kCarried));

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
