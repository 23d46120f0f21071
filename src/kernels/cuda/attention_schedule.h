// Cuts the attention of a step into the items that the CUDA kernels work on: once a step, for all
// layers with one window. Pure function of lengths. Keys are cut at fixed positions, so that the
// order of summation, and with it the result, depends on a query's position alone and not on the
// rest of the batch.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/cuda/attention_params.h"

namespace lamina::kernels::cuda {

// Keys of an item at most, by the number of keys there are: enough that partials cost little, few
// enough that few sequences fill a card.
[[nodiscard]] int32_t narrow_item_keys(int32_t num_keys);
inline constexpr int32_t kWideItemKeys = 2048;
// The same for latent keys, by the number of items that the sequence's rows make: there is one KV
// head alone to fill the card.
[[nodiscard]] int32_t latent_item_keys(int32_t num_keys, int32_t num_row_sets);

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
  bool latent = false;  // values lie in the keys
};
// Overwrites `schedule`; allocates only where it is too small.
void make_attention_schedule(const AttentionLengths& lengths, AttentionSchedule& schedule);

}  // namespace lamina::kernels::cuda
