// Cuts the attention of a step into the items that the CUDA kernels work on: once a step, for all
// layers with one window. Pure function of lengths, not of the number of heads or of the card: the
// order of summation, and with it the result, is the same where heads are split over workers.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/cuda/attention/attention_params.h"

namespace lamina::kernels::cuda {

// Keys of a narrow item at most, for rows with that many keys each: few enough that a card is full
// to the end, enough that partials cost less than that gains.
[[nodiscard]] int32_t narrow_item_keys(std::span<const int32_t> num_keys);
// The same of latent keys, where one KV head alone has to fill a card.
[[nodiscard]] int32_t latent_item_keys(std::span<const int32_t> num_keys, bool is_wide);
inline constexpr int32_t kFewestItemKeys = 128;
inline constexpr int32_t kMostItemKeys = 8192;
inline constexpr int32_t kWideItemKeys = 2048;

struct AttentionSchedule {
  // Of one width.
  struct Width {
    std::vector<AttentionItem> items;
    std::vector<AttentionItem> merges;
    int32_t num_partials = 0;
  };
  Width narrow;  // sequences with at most kNarrowRows rows
  Width wide;    // the others, kWideRows at a time
};

// A step's lengths, and what its layers have in common.
struct AttentionLengths {
  std::span<const int32_t> query_begin;  // [B + 1], as RaggedBatch has it
  std::span<const int32_t> context_len;  // [B]
  int32_t group = 1;                     // query heads of a KV head
  int32_t window = 0;                    // 0: none
  // Partials there is room for, of each width. Rows past that are not cut.
  int32_t max_partials = std::numeric_limits<int32_t>::max();
  bool latent = false;       // values lie in the keys
  bool cached_only = false;  // keys that were there before the step; rows without any have no items
};
// Overwrites `schedule`; allocates only where it is too small.
void make_attention_schedule(const AttentionLengths& lengths, AttentionSchedule& schedule);

}  // namespace lamina::kernels::cuda
