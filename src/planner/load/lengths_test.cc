#include "planner/load/lengths.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "planner/load/load.h"

namespace lamina::planner {
namespace {

TEST(Lengths, AFixedLengthIsWhatItSays) {
  Rng rng(1);
  const auto lengths = LengthDistribution::parse("fixed:1154.7");
  EXPECT_DOUBLE_EQ(lengths.mean(), 1154.7);
  EXPECT_EQ(lengths.draw(rng), 1155);
  EXPECT_DOUBLE_EQ(LengthDistribution::parse("7").mean(), 7);
}

// The mean of 20,000 draws beside the mean that is told, in standard errors.
void expect_mean(const std::string& text) {
  const auto lengths = LengthDistribution::parse(text);
  Rng rng(42);
  constexpr int kDraws = 20000;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double length = lengths.draw(rng);
    EXPECT_GE(length, 1);
    sum += length;
    squares += length * length;
  }
  const double mean = sum / kDraws;
  const double error = std::sqrt((squares / kDraws - mean * mean) / kDraws);
  EXPECT_NEAR(mean, lengths.mean(), 4 * error) << text << ", seed 42";
}

TEST(Lengths, DrawsHaveTheMeanThatIsTold) {
  expect_mean("normal:1000:200");
  expect_mean("normal:3:5");  // half of it is raised to 1
  expect_mean("zipf:1.2:8192");
  expect_mean("zipf:0:10");
}

TEST(Lengths, WhatIsNoDistributionIsRefused) {
  for (const char* text : {"",
                           "fixed",
                           "fixed:",
                           "fixed:0",
                           "fixed:-3",
                           "fixed:nan",
                           "normal:3",
                           "normal:0:1",
                           "normal:3:4:5",
                           "zipf:1.2",
                           "zipf:1.2:0",
                           "zipf:1.2:3.5",
                           "zipf:1:1e9",
                           "gamma:1:2"}) {
    EXPECT_THROW((void)LengthDistribution::parse(text), Error) << text;
  }
}

TEST(Load, DrawnRequestsComeAtTheRate) {
  const Load load = draw_load({.prompt = LengthDistribution::parse("100"),
                               .generated = LengthDistribution::parse("10"),
                               .requests_per_s = 5,
                               .num_requests = 4000,
                               .seed = 3});
  // 4000 gaps of 0.2 s: the last comes at 800 s, give or take 4 times 0.2 sqrt(4000).
  EXPECT_NEAR(load.requests.back().arrives_s, 800, 51);
  EXPECT_DOUBLE_EQ(load.context, 105);
  EXPECT_DOUBLE_EQ(load.tokens_per_s(), 50);
}

TEST(Load, WithoutARateAllComeAtOnce) {
  const Load load = draw_load({.prompt = LengthDistribution::parse("100"),
                               .generated = LengthDistribution::parse("10"),
                               .num_requests = 3});
  EXPECT_EQ(load.requests.back().arrives_s, 0);
  EXPECT_EQ(load.requests_per_s, 0);
}

}  // namespace
}  // namespace lamina::planner
