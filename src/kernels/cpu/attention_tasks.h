// How the CPU cuts a call of attention into tasks, and what of its keys each meets. Kernels see
// tasks through attention_run.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "device/thread_pool.h"
#include "kernels/attention.h"

namespace lamina::kernels::cpu {

inline constexpr int64_t kTileKeys = 64;
// Each stretch of keys between multiples of this is summed on its own, from nothing, and a row's
// sums of these are merged in ascending order: by one thread or by many, with the same bits
// (docs/adr/0024).
inline constexpr int64_t kSegmentKeys = 2048;
static_assert(kSegmentKeys % kTileKeys == 0);
// Rows (queries x heads of the group) of a chunk: their state fits the second-level cache, and a
// tile of keys and values that was prepared once serves them all.
inline constexpr int64_t kChunkRows = 96;

inline int64_t segment_of(int64_t position) {
  return position / kSegmentKeys;
}

// Positions, of keys.
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;

  [[nodiscard]] int64_t size() const { return end - begin; }
};

// Queries [begin, end) of sequence b, the first at `position`, for one KV head. A row is a query in
// one of the heads that share it: rows go query by query.
struct AttentionTask {
  int64_t b = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t position = 0;
  int64_t kv_head = 0;
  int64_t cached_end = 0;  // the whole tiles before here hold no key of this step
  KeyRange keys;           // that it meets in this phase
};

// Tasks of sequence b: its chunks, each in every KV head. And of all sequences.
int64_t num_tasks_of(const RaggedAttentionArgs& args, int64_t b);
int64_t num_tasks(const RaggedAttentionArgs& args);
// Task `i` of them, in the order chunk, head.
AttentionTask task_of(const RaggedAttentionArgs& args, int64_t b, int64_t i);

// Runs `run` for every task of a call, on the threads of `pool`.
void for_each_attention_task(const RaggedAttentionArgs& args,
                             ThreadPool& pool,
                             const std::function<void(const AttentionTask&)>& run);

// Indices [begin, end) of a list of lists, the i-th of which is count(i) long: visits the stretch
// [from, to) of each that they touch.
template <typename Count, typename Visit>
void for_each_stretch(int64_t begin, int64_t end, const Count& count, const Visit& visit) {
  int64_t first = 0;  // index of the list at hand
  for (int64_t i = 0; first < end; ++i) {
    const int64_t next = first + count(i);
    const int64_t from = std::max(begin, first);
    const int64_t to = std::min(end, next);
    if (from < to) visit(i, from - first, to - first);
    first = next;
  }
}

// Query heads per KV head.
inline int64_t group_size(const RaggedAttentionArgs& args) {
  return args.q.shape[1] / args.k_cache.shape[1];
}
inline int64_t num_rows(const RaggedAttentionArgs& args, const AttentionTask& task) {
  return (task.end - task.begin) * group_size(args);
}
// Elements of a value.
inline int64_t value_dim(const RaggedAttentionArgs& args) {
  return args.phase == AttentionPhase::kCached ? attention_state_value_dim(args.state.shape[2])
                                               : args.out.shape[2];
}
// First position that a query at `position` sees.
inline int64_t first_visible(const RaggedAttentionArgs& args, int64_t position) {
  return args.window ? std::max<int64_t>(0, position - *args.window + 1) : 0;
}

}  // namespace lamina::kernels::cpu
