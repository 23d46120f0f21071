#include "app/attention_service.h"

#include <gtest/gtest.h>

namespace lamina::app {
namespace {

int64_t now_ns() {
  return steady_clock().now().time_since_epoch().count();
}

// A part without a block of any step hears nothing for as long as it lasts: that is not hanging.
TEST(AttentionServiceStats, AnIdlePartIsNotStuck) {
  TileWorkerStats idle;
  idle.last_progress_ns = now_ns() - Duration(std::chrono::minutes(10)).count();
  TileWorkerStats busy;
  busy.is_in_step = true;
  busy.last_progress_ns = now_ns();
  control::WorkerStats stats;
  add_stats(idle, stats);
  add_stats(busy, stats);
  EXPECT_TRUE(stats.step_in_progress);
  EXPECT_LT(stats.progress_age_ms, 60'000U);
}

TEST(AttentionServiceStats, ThePartThatHangsCounts) {
  TileWorkerStats hanging;
  hanging.is_in_step = true;
  hanging.last_progress_ns = now_ns() - Duration(std::chrono::minutes(10)).count();
  TileWorkerStats busy;
  busy.is_in_step = true;
  busy.last_progress_ns = now_ns();
  control::WorkerStats stats;
  add_stats(hanging, stats);
  add_stats(busy, stats);
  EXPECT_GE(stats.progress_age_ms, 600'000U);
}

}  // namespace
}  // namespace lamina::app
