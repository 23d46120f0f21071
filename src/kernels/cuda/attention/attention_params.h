// What the CUDA attention kernels are told: plain structs that host and device share, pointers into
// device memory. Used by the operator's dispatch, by the schedule that cuts a step into work, and
// by the kernels; knows no tensor.
#pragma once

#include <cstdint>

namespace lamina::kernels::cuda {

// Keys go through shared memory in tiles of this many.
inline constexpr int32_t kTileKeys = 64;
// Queries of an item: rows of a matrix product.
inline constexpr int32_t kNarrowRows = 16;
inline constexpr int32_t kWideRows = 64;
// Latent keys: their first elements are the value.
inline constexpr int32_t kLatentKeyDim = 576;
inline constexpr int32_t kLatentValueDim = 512;
// Tiles, of keys or of values, on their way at once.
inline constexpr int32_t kMaxStages = 16;

// One piece of a step's attention, for each KV head: some rows of a sequence against some of its
// keys. A row is a query token and a head of the KV head's group: token * group + head.
struct AttentionItem {
  int32_t sequence;
  int32_t first_token;     // of the sequence, among the step's
  int32_t first_position;  // where that token stands
  int32_t row_begin;
  int32_t num_rows;
  int32_t key_begin;  // positions, a multiple of kTileKeys
  int32_t key_end;
  // Rows whose keys are split over several items leave partials, which are merged afterwards in
  // ascending order of keys. Those of one set of rows lie side by side.
  int32_t partial;       // of an item: its own, or kNoPartial: these are all keys of the rows
  int32_t num_partials;  // of a merge, from `partial` on
  int32_t padding[3];    // to whole vectors of 16 bytes
};
static_assert(sizeof(AttentionItem) == 48);
inline constexpr int32_t kNoPartial = -1;

// A step's items of one width, and the sets of rows whose partials are to be merged, in device
// memory.
struct AttentionItems {
  const AttentionItem* items;
  int32_t capacity;  // of items, of which num_items are this step's
  const int32_t* num_items;
  const AttentionItem* merges;  // keys: of all items together
  const int32_t* num_merges;
};

// Meanings as RaggedAttentionArgs has them, in kernels/attention.h.
struct AttentionParams {
  const void* q;          // [T, Hq, D]
  int64_t q_stride;       // elements from a token to the next; rows start at multiples of 16 bytes
  const void* k_cache;    // [P, Hkv, block_size, D], chunks of 16 bytes in the order of swizzle.cuh
  const void* v_cache;    // [P, Hkv, block_size, Dv], the same; null: values lie in the keys
  const float* k_scales;  // [P, Hkv, block_size] of caches of codes
  const float* v_scales;  // the same
  void* out;              // [T, Hq, Dv]
  float* lse;             // [T, Hq] or null
  const int32_t* block_tables;
  int64_t max_blocks;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t block_size;  // a multiple of 16, and a multiple or a divisor of kTileKeys
  float scale;
  float soft_cap;             // 0: none
  int32_t window;             // 0: none
  const float* alibi_slopes;  // [Hq] or null
  const float* sinks;         // [Hq] or null
  bool out_is_f32;            // else of q's dtype
  int32_t num_stages;         // as many as shared memory holds, at most kMaxStages
  AttentionItems items;
  // Which item is next, and how many blocks have found none left; zeros between launches.
  int32_t* progress;
  int32_t merged_rows;  // of a merge at most
  int32_t most_merges;  // sets of rows that there can be, in a graph's later steps too
  // Workspace: of each partial and KV head [rows of the width, Dv] and [rows].
  float* partial_outs;
  float* partial_lses;  // to base 2
};

}  // namespace lamina::kernels::cuda
