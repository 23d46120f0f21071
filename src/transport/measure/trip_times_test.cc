#include "transport/measure/trip_times.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace lamina::measure {
namespace {

using std::chrono::milliseconds;

TEST(MeasureFor, OneBatchIsEnoughWhereTheTimeIsOver) {
  const auto times = measure_for(Duration::zero(), 3, [](uint64_t count) {
    return Result<std::vector<double>>(std::vector<double>(count, 2.0));
  });
  ASSERT_TRUE(times.ok());
  EXPECT_EQ(times.value(), (std::vector<double>{2.0, 2.0, 2.0}));
}

TEST(MeasureFor, LeavesTheFirstBatchOutAndSorts) {
  ManualClock clock;
  std::vector<uint64_t> counts;
  const auto run_batch = [&](uint64_t count) {
    counts.push_back(count);
    clock.advance(milliseconds(1));
    const double time = 100.0 - static_cast<double>(counts.size());
    return Result<std::vector<double>>(std::vector<double>(count, counts.size() == 1 ? 1.0 : time));
  };
  const auto times = measure_for(milliseconds(20), 2, run_batch, clock);
  ASSERT_TRUE(times.ok());
  ASSERT_GE(counts.size(), 2U);
  for (size_t i = 1; i < counts.size(); ++i) EXPECT_LE(counts[i], 4 * counts[i - 1]);
  EXPECT_GT(times.value().front(), 1.0);
  EXPECT_TRUE(std::is_sorted(times.value().begin(), times.value().end()));
}

TEST(MeasureFor, EndsWithAnErrorAndWithEnoughTrips) {
  const auto failed = measure_for(milliseconds(1), 1, [](uint64_t /*count*/) {
    return Result<std::vector<double>>(unavailable("gone"));
  });
  EXPECT_EQ(failed.status().code(), StatusCode::kUnavailable);
  const auto many = measure_for(std::chrono::hours(1), kMaxTrips / 2, [](uint64_t count) {
    return Result<std::vector<double>>(std::vector<double>(count));
  });
  ASSERT_TRUE(many.ok());
  EXPECT_GE(many.value().size(), kMaxTrips);
}

TEST(Summary, TellsPercentilesAndTheRateOfBothWays) {
  std::vector<double> times(200);
  for (size_t i = 0; i < times.size(); ++i) times[i] = static_cast<double>(i + 1);
  const TripSummary summary = summarise(times, 1'010'000);
  EXPECT_EQ(summary.p50_us, 101.0);
  EXPECT_EQ(summary.p99_us, 199.0);
  EXPECT_DOUBLE_EQ(summary.gb_per_s, 20.0);
  EXPECT_EQ(summary.num_times, 200U);
}

}  // namespace
}  // namespace lamina::measure
