#include "kernels/cuda/attention/attention_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <tuple>
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

int32_t num_keys(const AttentionItem& item) {
  return item.key_end - item.key_begin;
}

auto place(const AttentionItem& item) {
  return std::tuple(item.sequence, item.row_begin, item.key_begin);
}

// That items come longest first, that those of each set of rows follow each other without a gap,
// and are merged if there are several.
void expect_sound(AttentionSchedule::Width width) {
  EXPECT_TRUE(std::ranges::is_sorted(width.items, std::ranges::greater(), num_keys));
  std::ranges::sort(width.items, {}, place);
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
  EXPECT_EQ(schedule.narrow.items.back().key_end, 100);
  EXPECT_EQ(schedule.narrow.items.back().partial, kNoPartial);
  EXPECT_NE(schedule.narrow.items.front().partial, kNoPartial);
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

// Workers with some of the heads add up sums in the order that one with all of them would.
TEST(AttentionSchedule, WhereKeysAreCutDoesNotDependOnHeads) {
  const AttentionSchedule few = cut({1, 1, 1}, {20'000, 9000, 50}, 1);
  const AttentionSchedule many = cut({1, 1, 1}, {20'000, 9000, 50}, 16);
  ASSERT_EQ(few.narrow.items.size(), many.narrow.items.size());
  for (size_t i = 0; i < few.narrow.items.size(); ++i) {
    EXPECT_EQ(place(few.narrow.items[i]), place(many.narrow.items[i]));
  }
}

int32_t item_keys(size_t num_sequences, int32_t context_len) {
  return narrow_item_keys(std::vector<int32_t>(num_sequences, context_len));
}

TEST(AttentionSchedule, SequencesAreCutWhereTheyAreFew) {
  EXPECT_EQ(item_keys(1, 1024), 128);
  EXPECT_EQ(item_keys(16, 4096), 2048);  // one for each block
  EXPECT_GE(item_keys(20, 1024), 1024);
  EXPECT_GE(item_keys(64, 4096), 4096);  // blocks have enough of them as they are
  EXPECT_GE(item_keys(128, 2048), 2048);
  EXPECT_GE(item_keys(0, 0), kFewestItemKeys);
}

TEST(AttentionSchedule, LatentKeysAreCutForOneKvHead) {
  const auto wide = [](size_t num_row_sets, int32_t context_len) {
    return latent_item_keys(std::vector<int32_t>(num_row_sets, context_len), true);
  };
  EXPECT_EQ(wide(2, 65'536), 1024);  // one for each multiprocessor
  EXPECT_EQ(wide(32, 4096), 1024);
  EXPECT_EQ(wide(32, 16'384), 4096);
  EXPECT_GE(wide(128, 4096), 4096);
  EXPECT_EQ(latent_item_keys(std::vector<int32_t>(16, 4096), false), 512);
  AttentionSchedule schedule;
  const std::vector<int32_t> query_begin = {0, 1};
  const std::vector<int32_t> context_len = {65'536};
  make_attention_schedule(
      {.query_begin = query_begin, .context_len = context_len, .group = 128, .latent = true},
      schedule);
  expect_sound(schedule.wide);
  EXPECT_EQ(schedule.wide.items.size(), 128U);
  EXPECT_EQ(schedule.wide.merges.size(), 2U);
}

TEST(AttentionSchedule, RowsWithoutRoomForPartialsAreNotCut) {
  const AttentionSchedule schedule = cut({1, 1}, {9000, 9000}, 8, 0, 10);
  expect_sound(schedule.narrow);
  EXPECT_EQ(schedule.narrow.merges.size(), 1U);
  EXPECT_EQ(schedule.narrow.items.front().partial, kNoPartial);
  EXPECT_EQ(num_keys(schedule.narrow.items.front()), 9000);
}

TEST(AttentionSchedule, CachedKeysEndBeforeTheStep) {
  const std::vector<int32_t> query_begin = {0, 1, 2, 3, 4};
  const std::vector<int32_t> context_len = {1, 65, 100, 20'000};
  AttentionSchedule schedule;
  AttentionLengths lengths = {
      .query_begin = query_begin, .context_len = context_len, .group = 8, .cached_only = true};
  make_attention_schedule(lengths, schedule);
  expect_sound(schedule.narrow);
  std::map<int32_t, int32_t> ends;  // by sequence
  for (const AttentionItem& item : schedule.narrow.items) {
    EXPECT_EQ(item.first_position, context_len[static_cast<size_t>(item.sequence)] - 1);
    ends[item.sequence] = std::max(ends[item.sequence], item.key_end);
  }
  EXPECT_EQ(ends, (std::map<int32_t, int32_t>{{1, 64}, {2, 99}, {3, 19'999}}));
  ASSERT_EQ(schedule.narrow.merges.size(), 1U);
  EXPECT_EQ(schedule.narrow.merges[0].key_end, 19'999);
}

// Whoever sees a cached key has an item: the second phase relies on it.
TEST(AttentionSchedule, CachedKeysMoveWithTheWindow) {
  const std::vector<int32_t> query_begin = {0, 1};
  for (const int32_t window : {1, 2, 64, 65, 100}) {
    for (int32_t context = 1; context < 200; ++context) {
      const std::vector<int32_t> context_len = {context};
      AttentionSchedule schedule;
      make_attention_schedule({.query_begin = query_begin,
                               .context_len = context_len,
                               .window = window,
                               .cached_only = true},
                              schedule);
      const int32_t first_seen = std::max(0, context - window);
      if (first_seen >= context - 1) continue;
      ASSERT_FALSE(schedule.narrow.items.empty()) << window << ", " << context;
      const auto& items = schedule.narrow.items;
      EXPECT_EQ(std::ranges::min(items, {}, place).key_begin, first_seen / kTileKeys * kTileKeys);
      EXPECT_EQ(std::ranges::max(items, {}, place).key_end, context - 1);
    }
  }
}

TEST(AttentionSchedule, NothingComesOfNothing) {
  const AttentionSchedule schedule = cut({0}, {64}, 8);
  EXPECT_TRUE(schedule.narrow.items.empty());
  EXPECT_TRUE(schedule.wide.items.empty());
}

}  // namespace
}  // namespace lamina::kernels::cuda
