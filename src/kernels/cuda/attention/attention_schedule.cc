#include "kernels/cuda/attention/attention_schedule.h"

#include <algorithm>
#include <bit>
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

// The sets of rows of sequence `b` that have keys, all of them in one item: calls use(rows).
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
    const int32_t last_token = (row + rows.num_rows - 1) / lengths.group;
    rows.key_end = rows.first_position + (lengths.cached_only ? 0 : last_token + 1);
    if (rows.key_begin < rows.key_end) use(rows, num_rows <= kNarrowRows);
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

// What items cost, in the time that a block takes for a key while all blocks are busy.
struct Costs {
  // Of a card, for each KV head: taken for granted whatever there is, so that sums are added up in
  // the same order where heads are split over several workers.
  size_t num_blocks;
  // The fewer blocks are left, the faster they are, but one has not the whole of a card.
  double fastest;
  int32_t item;  // its sums, their way to memory
  double merge_start;
  double partial;
};
// 132 multiprocessors with two blocks each for 8 KV heads. With these numbers and kSpread the
// estimate picks, of the sizes measured on an H100, one within 0.7 % of the best.
constexpr Costs kCosts = {33, 2.5, 0, 110.0, 1.0};
// One block a multiprocessor for one KV head. Not measured: 1152 bytes or 64 rows a key, of sums 32
// or 128 KiB an item.
constexpr Costs kLatentNarrowCosts = {132, 1.75, 16, 90.0, 1.0};
constexpr Costs kLatentWideCosts = {132, 1.0, 64, 90.0, 2.0};
// Memory serves some multiprocessors faster than others: by so much at most, around the mean.
constexpr double kSpread = 0.15;

// When all blocks have done what takes them `times` while all are busy.
double time_of(std::vector<double>& times, double fastest) {
  std::ranges::sort(times);
  double time = 0.0;
  double done = 0.0;
  for (size_t i = 0; i < times.size(); ++i) {
    const double share = static_cast<double>(times.size()) / static_cast<double>(times.size() - i);
    time += (times[i] - done) / std::min(fastest, share);
    done = times[i];
  }
  return time;
}

// Estimates how long rows take whose keys are cut into items. Its memory is kept from one size of
// items to the next.
class ItemCosts {
 public:
  ItemCosts(std::span<const int32_t> num_keys, const Costs& costs)
      : num_keys_(num_keys), costs_(costs), blocks_(costs.num_blocks), times_(costs.num_blocks) {}

  // With items of up to `max_keys`, merges included.
  double time_of_items(int32_t max_keys) {
    cut(max_keys);
    deal_out(max_keys);
    const double merges =
        num_partials_ > 0 ? costs_.merge_start + costs_.partial * num_partials_ : 0;
    return time_of(times_, costs_.fastest) + merges;
  }

 private:
  struct Block {
    double time = 0.0;
    double slowness = 1.0;
    bool operator<(const Block& other) const {
      return time < other.time || (time == other.time && slowness > other.slowness);
    }
  };

  // Whole items come first, as they do in the queue; then what is left of each row, long ones
  // first.
  void cut(int32_t max_keys) {
    num_whole_ = 0;
    num_partials_ = 0;
    rests_.clear();
    for (const int32_t keys : num_keys_) {
      if (keys > max_keys) num_partials_ += (keys + max_keys - 1) / max_keys;
      num_whole_ += keys / max_keys;
      if (keys % max_keys != 0) rests_.push_back(keys % max_keys);
    }
    std::ranges::sort(rests_, std::ranges::greater());
  }

  // Whoever is free takes the next.
  void deal_out(int32_t max_keys) {
    const auto last = static_cast<double>(blocks_.size() - 1);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const double place = static_cast<double>(i) / last;
      blocks_[i] = {0.0, 1.0 / (1.0 + kSpread * (2.0 * place - 1.0))};
    }
    for (int32_t i = 0; i < num_whole_; ++i) give(max_keys);
    for (const int32_t keys : rests_) give(keys);
    std::ranges::transform(blocks_, times_.begin(), &Block::time);
  }

  // To the first block of the heap, which sinks to its new place.
  void give(int32_t keys) {
    Block block = blocks_.front();
    block.time += (keys + costs_.item) * block.slowness;
    size_t hole = 0;
    for (size_t child = 1; child < blocks_.size(); child = 2 * hole + 1) {
      if (child + 1 < blocks_.size() && blocks_[child + 1] < blocks_[child]) ++child;
      if (!(blocks_[child] < block)) break;
      blocks_[hole] = blocks_[child];
      hole = child;
    }
    blocks_[hole] = block;
  }

  std::span<const int32_t> num_keys_;
  const Costs& costs_;
  int32_t num_whole_ = 0;
  int32_t num_partials_ = 0;
  std::vector<int32_t> rests_;
  std::vector<Block> blocks_;  // a heap: the first to be free on top
  std::vector<double> times_;
};

int32_t item_keys(std::span<const int32_t> num_keys, const Costs& costs) {
  if (num_keys.empty()) return kMostItemKeys;
  const auto most_items = static_cast<int64_t>(8 * costs.num_blocks);  // finer gains nothing
  const int64_t total = std::reduce(num_keys.begin(), num_keys.end(), int64_t{0});
  // Greater ones cut nothing either.
  const auto longest = static_cast<uint32_t>(std::ranges::max(num_keys));
  ItemCosts item_costs(num_keys, costs);
  int32_t best =
      std::clamp(static_cast<int32_t>(std::bit_ceil(longest)), kFewestItemKeys, kMostItemKeys);
  double least = item_costs.time_of_items(best);
  for (int32_t keys = best / 2; keys >= kFewestItemKeys && total / keys < most_items; keys /= 2) {
    const double time = item_costs.time_of_items(keys);
    if (time >= least) continue;
    best = keys;
    least = time;
  }
  return best;
}

}  // namespace

int32_t narrow_item_keys(std::span<const int32_t> num_keys) {
  return item_keys(num_keys, kCosts);
}

int32_t latent_item_keys(std::span<const int32_t> num_keys, bool is_wide) {
  return item_keys(num_keys, is_wide ? kLatentWideCosts : kLatentNarrowCosts);
}

void make_attention_schedule(const AttentionLengths& lengths, AttentionSchedule& schedule) {
  clear(schedule.narrow);
  clear(schedule.wide);
  std::vector<int32_t> narrow_keys;
  std::vector<int32_t> wide_keys;
  for (size_t b = 0; b < lengths.context_len.size(); ++b) {
    for_each_rows(lengths, b, [&](const AttentionItem& rows, bool is_narrow) {
      (is_narrow ? narrow_keys : wide_keys).push_back(rows.key_end - rows.key_begin);
    });
  }
  const int32_t narrow_max =
      lengths.latent ? latent_item_keys(narrow_keys, false) : narrow_item_keys(narrow_keys);
  const int32_t wide_max = lengths.latent ? latent_item_keys(wide_keys, true) : kWideItemKeys;
  for (size_t b = 0; b < lengths.context_len.size(); ++b) {
    for_each_rows(lengths, b, [&](const AttentionItem& rows, bool is_narrow) {
      cut_keys(rows,
               is_narrow ? narrow_max : wide_max,
               lengths.max_partials,
               is_narrow ? schedule.narrow : schedule.wide);
    });
  }
  sort_by_length(schedule.narrow.items);
  sort_by_length(schedule.wide.items);
}

}  // namespace lamina::kernels::cuda
