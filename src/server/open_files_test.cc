#include "server/open_files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace lamina::server {
namespace {

TEST(OpenFiles, TheLimitFollowsTheConnections) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  if (before.rlim_max < 1024) GTEST_SKIP() << "skipped: the hard limit is " << before.rlim_max;
  const rlimit low{.rlim_cur = 64, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(make_room_for_connections(500), 500);
  rlimit now{};
  getrlimit(RLIMIT_NOFILE, &now);
  EXPECT_GT(now.rlim_cur, 500U);
  EXPECT_LE(now.rlim_cur, now.rlim_max);
  if (before.rlim_max < 2'000'000'000) {
    const int32_t fitting = make_room_for_connections(2'000'000'000);
    EXPECT_GE(fitting, 1);
    EXPECT_LT(static_cast<rlim_t>(fitting), before.rlim_max);
  }
  setrlimit(RLIMIT_NOFILE, &before);
}

}  // namespace
}  // namespace lamina::server
