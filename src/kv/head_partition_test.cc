#include "kv/head_partition.h"

#include <gtest/gtest.h>

namespace lamina {

void PrintTo(const HeadRange& range, std::ostream* out) {
  *out << "[" << range.begin << ", " << range.end << ")";
}

namespace {

using Ranges = std::vector<HeadRange>;

TEST(SplitHeads, GivesLargerSharesFirst) {
  EXPECT_EQ(split_heads(8, 1), (Ranges{{0, 8}}));
  EXPECT_EQ(split_heads(8, 2), (Ranges{{0, 4}, {4, 8}}));
  EXPECT_EQ(split_heads(3, 2), (Ranges{{0, 2}, {2, 3}}));
  EXPECT_EQ(split_heads(8, 3), (Ranges{{0, 3}, {3, 6}, {6, 8}}));
}

TEST(SplitHeads, LeavesSurplusWorkersOut) {
  EXPECT_EQ(split_heads(1, 4), (Ranges{{0, 1}}));
  EXPECT_EQ(split_heads(3, 5), (Ranges{{0, 1}, {1, 2}, {2, 3}}));
}

TEST(SplitHeads, FollowsSpeed) {
  EXPECT_EQ(split_heads(8, std::vector<double>{3, 1}), (Ranges{{0, 6}, {6, 8}}));
  EXPECT_EQ(split_heads(4, std::vector<double>{100, 1, 1}), (Ranges{{0, 2}, {2, 3}, {3, 4}}));
}

TEST(SplitHeads, CoversEveryHeadOnceAndEvenly) {
  for (int32_t heads = 1; heads <= 40; ++heads) {
    for (int32_t workers = 1; workers <= 12; ++workers) {
      int32_t next = 0;
      for (const HeadRange& range : split_heads(heads, workers)) {
        ASSERT_EQ(range.begin, next);
        ASSERT_GE(range.count(), heads / workers);
        ASSERT_GE(range.count(), 1);
        ASSERT_LE(range.count(), heads / workers + 1);
        next = range.end;
      }
      ASSERT_EQ(next, heads);
    }
  }
}

}  // namespace
}  // namespace lamina
