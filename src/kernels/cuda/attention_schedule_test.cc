#include "kernels/cuda/attention_schedule.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace lamina::kernels::cuda {
namespace {

AttentionSchedule cut(const std::vector<int32_t>& num_queries,
                      const std::vector<int32_t>& context_len,
                      int32_t group,
                      int32_t window = 0,
                      int32_t max_partials = 1000) {
  std::vector<int32_t> query_begin = {0};
  for (const int32_t count : num_queries) query_begin.push_back(query_begin.back() + count);
  AttentionSchedule schedule;
  make_attention_schedule({query_begin, context_len, group, window, max_partials}, schedule);
  return schedule;
}

// That the items of each set of rows follow each other without a gap, and are merged if there are
// several.
void expect_sound(const AttentionSchedule::Width& width) {
  std::map<std::pair<int32_t, int32_t>, AttentionItem> last;  // by sequence and first row
  int32_t num_partials = 0;
  for (const AttentionItem& item : width.items) {
    EXPECT_LT(item.key_begin, item.key_end);
    EXPECT_EQ(item.key_begin % kTileKeys, 0);
    const auto [at, is_first] = last.try_emplace({item.sequence, item.row_begin}, item);
    if (!is_first) {
      EXPECT_EQ(at->second.key_end, item.key_begin);
      EXPECT_EQ(at->second.partial + 1, item.partial);
      at->second = item;
    }
    num_partials += item.partial == kNoPartial ? 0 : 1;
  }
  EXPECT_EQ(num_partials, width.num_partials);
  for (const AttentionItem& rows : width.merges) {
    EXPECT_GT(rows.num_partials, 1);
    num_partials -= rows.num_partials;
    const AttentionItem& item = last.at({rows.sequence, rows.row_begin});
    EXPECT_EQ(rows.partial + rows.num_partials - 1, item.partial);
    EXPECT_EQ(rows.key_end, item.key_end);
  }
  EXPECT_EQ(num_partials, 0);
}

TEST(AttentionSchedule, OneTokenIsOneSetOfRowsAllKeysOfWhichAreThere) {
  const AttentionSchedule schedule = cut({1, 1}, {100, 5000}, 8);
  expect_sound(schedule.narrow);
  EXPECT_TRUE(schedule.wide.items.empty());
  EXPECT_EQ(schedule.narrow.items.front().key_end, 100);
  EXPECT_EQ(schedule.narrow.items.front().partial, kNoPartial);
  EXPECT_EQ(schedule.narrow.items.back().key_end, 5000);
  ASSERT_EQ(schedule.narrow.merges.size(), 1U);
  EXPECT_EQ(schedule.narrow.merges[0].sequence, 1);
}

TEST(AttentionSchedule, ManyRowsAreWideAndSeeNoKeyPastTheirOwn) {
  const AttentionSchedule schedule = cut({40}, {3000}, 4);
  expect_sound(schedule.wide);
  EXPECT_TRUE(schedule.narrow.items.empty());
  int32_t num_rows = 0;
  for (const AttentionItem& item : schedule.wide.items) {
    if (item.key_begin == 0) num_rows += item.num_rows;
    const int32_t last_token = (item.row_begin + item.num_rows - 1) / 4;
    EXPECT_LE(item.key_end, 3000 - 40 + last_token + 1);
  }
  EXPECT_EQ(num_rows, 160);
}

TEST(AttentionSchedule, AWindowLeavesTheTilesBeforeItOut) {
  const AttentionSchedule schedule = cut({1}, {10'000}, 1, 100);
  expect_sound(schedule.narrow);
  EXPECT_EQ(schedule.narrow.items.front().key_begin, 9'900 / kTileKeys * kTileKeys);
}

TEST(AttentionSchedule, WhereKeysAreCutDependsOnTheSequenceAlone) {
  const AttentionSchedule alone = cut({1}, {9000}, 8);
  const AttentionSchedule among = cut({1, 1, 7}, {20'000, 9000, 50}, 8);
  std::vector<int32_t> cuts;
  for (const AttentionItem& item : among.narrow.items) {
    if (item.sequence == 1) cuts.push_back(item.key_begin);
  }
  ASSERT_EQ(cuts.size(), alone.narrow.items.size());
  for (size_t i = 0; i < cuts.size(); ++i) EXPECT_EQ(cuts[i], alone.narrow.items[i].key_begin);
}

TEST(AttentionSchedule, LatentKeysAreCutFinerTheFewerRowsThereAre) {
  EXPECT_EQ(latent_item_keys(1000, 1), 256);
  EXPECT_EQ(latent_item_keys(4096, 1), 512);
  EXPECT_EQ(latent_item_keys(4096, 2), 1024);
  EXPECT_EQ(latent_item_keys(100'000, 1), 2048);
  AttentionSchedule schedule;
  const std::vector<int32_t> query_begin = {0, 1};
  const std::vector<int32_t> context_len = {4096};
  make_attention_schedule(
      {.query_begin = query_begin, .context_len = context_len, .group = 128, .latent = true},
      schedule);
  expect_sound(schedule.wide);
  EXPECT_EQ(schedule.wide.items.size(), 8U);
  EXPECT_EQ(schedule.wide.merges.size(), 2U);
}

TEST(AttentionSchedule, RowsWithoutRoomForPartialsAreNotCut) {
  const AttentionSchedule schedule = cut({1, 1}, {9000, 9000}, 8, 0, 7);
  expect_sound(schedule.narrow);
  EXPECT_EQ(schedule.narrow.merges.size(), 1U);
  EXPECT_EQ(schedule.narrow.items.back().partial, kNoPartial);
  EXPECT_EQ(schedule.narrow.items.back().key_begin, 0);
}

TEST(AttentionSchedule, NothingComesOfNothing) {
  const AttentionSchedule schedule = cut({0}, {64}, 8);
  EXPECT_TRUE(schedule.narrow.items.empty());
  EXPECT_TRUE(schedule.wide.items.empty());
}

}  // namespace
}  // namespace lamina::kernels::cuda
