#include "kernels/cuda/attention_schedule.h"

#include <algorithm>

namespace lamina::kernels::cuda {
namespace {

// Appends the items of some rows, whose keys are [key_begin, key_end).
void cut_keys(AttentionItem rows, int32_t max_keys, AttentionSchedule::Width& width) {
  const int32_t first = rows.key_begin / max_keys;
  const int32_t end = (rows.key_end + max_keys - 1) / max_keys;
  const bool is_whole = end - first <= 1;
  rows.partial = is_whole ? kNoPartial : width.num_partials;
  for (int32_t i = first; i < end; ++i) {
    AttentionItem item = rows;
    item.key_begin = std::max(rows.key_begin, i * max_keys);
    item.key_end = std::min(rows.key_end, (i + 1) * max_keys);
    if (!is_whole) item.partial += i - first;
    width.items.push_back(item);
  }
  if (is_whole) return;
  rows.num_partials = end - first;
  width.num_partials += rows.num_partials;
  width.merges.push_back(rows);
}

void clear(AttentionSchedule::Width& width) {
  width.items.clear();
  width.merges.clear();
  width.num_partials = 0;
}

}  // namespace

int32_t narrow_item_keys(int32_t num_keys) {
  constexpr int32_t kLeast = 1024;
  constexpr int32_t kMost = 2048;
  constexpr int32_t kWantedItems = 2;
  int32_t keys = kLeast;
  while (keys < kMost && keys * kWantedItems < num_keys) keys *= 2;
  return keys;
}

void make_attention_schedule(std::span<const int32_t> query_begin,
                             std::span<const int32_t> context_len,
                             int32_t group,
                             int32_t window,
                             AttentionSchedule& schedule) {
  clear(schedule.narrow);
  clear(schedule.wide);
  for (int32_t b = 0; b < static_cast<int32_t>(context_len.size()); ++b) {
    const int32_t num_tokens = query_begin[b + 1] - query_begin[b];
    const int32_t num_rows = num_tokens * group;
    const int32_t first_position = context_len[b] - num_tokens;
    const bool is_narrow = num_rows <= kNarrowRows;
    const int32_t max_rows = is_narrow ? kNarrowRows : kWideRows;
    for (int32_t row = 0; row < num_rows; row += max_rows) {
      AttentionItem rows{};
      rows.sequence = b;
      rows.first_token = query_begin[b];
      rows.first_position = first_position;
      rows.row_begin = row;
      rows.num_rows = std::min(max_rows, num_rows - row);
      const int32_t first_seen = first_position + row / group - window + 1;
      rows.key_begin = window > 0 ? std::max(0, first_seen) / kTileKeys * kTileKeys : 0;
      rows.key_end = first_position + (row + rows.num_rows - 1) / group + 1;
      cut_keys(rows,
               is_narrow ? narrow_item_keys(rows.key_end) : kWideItemKeys,
               is_narrow ? schedule.narrow : schedule.wide);
    }
  }
}

}  // namespace lamina::kernels::cuda
