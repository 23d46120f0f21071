#include "kernels/cuda/attention_schedule.h"

#include <algorithm>

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

// Keys of an item of a sequence with `num_rows` rows.
int32_t item_keys(int32_t num_keys, int32_t num_rows, bool is_latent) {
  const bool is_narrow = num_rows <= kNarrowRows;
  if (is_latent) {
    return latent_item_keys(num_keys, is_narrow ? 1 : (num_rows + kWideRows - 1) / kWideRows);
  }
  return is_narrow ? narrow_item_keys(num_keys) : kWideItemKeys;
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

int32_t latent_item_keys(int32_t num_keys, int32_t num_row_sets) {
  constexpr int32_t kLeast = 256;
  constexpr int32_t kMost = 2048;
  constexpr int32_t kWantedItems = 8;
  const int32_t wanted = std::max(1, kWantedItems / num_row_sets);
  int32_t keys = kLeast;
  while (keys < kMost && keys * wanted < num_keys) keys *= 2;
  return keys;
}

void make_attention_schedule(const AttentionLengths& lengths, AttentionSchedule& schedule) {
  clear(schedule.narrow);
  clear(schedule.wide);
  for (size_t b = 0; b < lengths.context_len.size(); ++b) {
    AttentionItem rows{};
    rows.sequence = static_cast<int32_t>(b);
    rows.first_token = lengths.query_begin[b];
    const int32_t num_tokens = lengths.query_begin[b + 1] - rows.first_token;
    rows.first_position = lengths.context_len[b] - num_tokens;
    const int32_t num_rows = num_tokens * lengths.group;
    const bool is_narrow = num_rows <= kNarrowRows;
    const int32_t max_rows = is_narrow ? kNarrowRows : kWideRows;
    for (int32_t row = 0; row < num_rows; row += max_rows) {
      rows.row_begin = row;
      rows.num_rows = std::min(max_rows, num_rows - row);
      const int32_t first_seen = rows.first_position + row / lengths.group - lengths.window + 1;
      rows.key_begin = lengths.window > 0 ? std::max(0, first_seen) / kTileKeys * kTileKeys : 0;
      rows.key_end = rows.first_position + (row + rows.num_rows - 1) / lengths.group + 1;
      cut_keys(rows,
               item_keys(rows.key_end, num_rows, lengths.latent),
               lengths.max_partials,
               is_narrow ? schedule.narrow : schedule.wide);
    }
  }
}

}  // namespace lamina::kernels::cuda
