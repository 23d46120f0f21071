#include "kernels/cuda/attention_schedule.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

namespace lamina::kernels::cuda {
namespace {

// Appends the items of some rows, whose keys are [key_begin, key_end).
void cut_keys(AttentionItem rows,
              int32_t max_keys,
              int32_t max_partials,
              AttentionSchedule::Width& width) {
  const int32_t first = rows.key_begin / max_keys;
  const int32_t end = (rows.key_end + max_keys - 1) / max_keys;
  rows.partial = kNoPartial;
  if (end - first <= 1 || width.num_partials + end - first > max_partials) {
    width.items.push_back(rows);
    return;
  }
  for (int32_t i = first; i < end; ++i) {
    AttentionItem item = rows;
    item.key_begin = std::max(rows.key_begin, i * max_keys);
    item.key_end = std::min(rows.key_end, (i + 1) * max_keys);
    item.partial = width.num_partials + i - first;
    width.items.push_back(item);
  }
  rows.partial = width.num_partials;
  rows.num_partials = end - first;
  width.num_partials += rows.num_partials;
  width.merges.push_back(rows);
}

// The sets of rows of sequence `b`, all their keys in one item: calls use(rows).
template <typename Use>
void for_each_rows(const AttentionLengths& lengths, size_t b, const Use& use) {
  AttentionItem rows{};
  rows.sequence = static_cast<int32_t>(b);
  rows.first_token = lengths.query_begin[b];
  const int32_t num_tokens = lengths.query_begin[b + 1] - rows.first_token;
  rows.first_position = lengths.context_len[b] - num_tokens;
  const int32_t num_rows = num_tokens * lengths.group;
  const int32_t max_rows = num_rows <= kNarrowRows ? kNarrowRows : kWideRows;
  for (int32_t row = 0; row < num_rows; row += max_rows) {
    rows.row_begin = row;
    rows.num_rows = std::min(max_rows, num_rows - row);
    const int32_t first_seen = rows.first_position + row / lengths.group - lengths.window + 1;
    rows.key_begin = lengths.window > 0 ? std::max(0, first_seen) / kTileKeys * kTileKeys : 0;
    rows.key_end = rows.first_position + (row + rows.num_rows - 1) / lengths.group + 1;
    use(rows, num_rows <= kNarrowRows);
  }
}

void clear(AttentionSchedule::Width& width) {
  width.items.clear();
  width.merges.clear();
  width.num_partials = 0;
}

// The queue deals items out in this order: long ones first, so that all blocks end at about the
// same time.
void sort_by_length(std::vector<AttentionItem>& items) {
  std::ranges::stable_sort(items, std::ranges::greater(), [](const AttentionItem& item) {
    return item.key_end - item.key_begin;
  });
}

// A card of 132 multiprocessors has this many blocks for each of 8 KV heads: taken for granted
// whatever there is, so that sums are added up in the same order where heads are split over several
// workers.
constexpr size_t kBlocks = 33;

// How long blocks take for their keys, in the time a block takes for one while all are busy. The
// fewer are left, the faster they are, but one has not the whole of a multiprocessor's bandwidth.
double time_of(std::array<int64_t, kBlocks>& keys) {
  constexpr double kFastest = 1.75;
  std::ranges::sort(keys);
  double time = 0.0;
  int64_t done = 0;
  for (size_t i = 0; i < kBlocks; ++i) {
    const double speed = std::min(kFastest, kBlocks / static_cast<double>(kBlocks - i));
    time += static_cast<double>(keys[i] - done) / speed;
    done = keys[i];
  }
  return time;
}

// The same for sequences cut into items of up to `max_keys`, of which whoever is free takes the
// longest left, merges included.
double estimate_time(std::span<const int32_t> num_keys, int32_t max_keys) {
  constexpr double kMergeStart = 90.0;
  constexpr double kPartial = 1.0;
  int32_t num_partials = 0;
  std::vector<int32_t> items;
  for (const int32_t keys : num_keys) {
    if (keys > max_keys) num_partials += (keys + max_keys - 1) / max_keys;
    items.insert(items.end(), static_cast<size_t>(keys / max_keys), max_keys);
    if (keys % max_keys != 0) items.push_back(keys % max_keys);
  }
  std::ranges::sort(items, std::ranges::greater());
  std::array<int64_t, kBlocks> busy{};  // a heap: the first to be free on top
  for (const int32_t keys : items) {
    std::ranges::pop_heap(busy, std::ranges::greater());
    busy.back() += keys;
    std::ranges::push_heap(busy, std::ranges::greater());
  }
  return time_of(busy) + (num_partials > 0 ? kMergeStart + kPartial * num_partials : 0.0);
}

}  // namespace

int32_t narrow_item_keys(std::span<const int32_t> num_keys) {
  constexpr int64_t kMostItems = 8 * kBlocks;  // finer gains nothing
  const int64_t total = std::reduce(num_keys.begin(), num_keys.end(), int64_t{0});
  int32_t best = kMostItemKeys;
  double least = estimate_time(num_keys, best);
  for (int32_t keys = best / 2; keys >= kFewestItemKeys && total / keys < kMostItems; keys /= 2) {
    const double time = estimate_time(num_keys, keys);
    if (time >= least) continue;
    best = keys;
    least = time;
  }
  return best;
}

void make_attention_schedule(const AttentionLengths& lengths, AttentionSchedule& schedule) {
  clear(schedule.narrow);
  clear(schedule.wide);
  std::vector<int32_t> narrow_keys;
  for (size_t b = 0; b < lengths.context_len.size(); ++b) {
    for_each_rows(lengths, b, [&](const AttentionItem& rows, bool is_narrow) {
      if (is_narrow) narrow_keys.push_back(rows.key_end - rows.key_begin);
    });
  }
  const int32_t narrow_max = narrow_item_keys(narrow_keys);
  for (size_t b = 0; b < lengths.context_len.size(); ++b) {
    for_each_rows(lengths, b, [&](const AttentionItem& rows, bool is_narrow) {
      cut_keys(rows,
               is_narrow ? narrow_max : kWideItemKeys,
               lengths.max_partials,
               is_narrow ? schedule.narrow : schedule.wide);
    });
  }
  sort_by_length(schedule.narrow.items);
  sort_by_length(schedule.wide.items);
}

}  // namespace lamina::kernels::cuda
