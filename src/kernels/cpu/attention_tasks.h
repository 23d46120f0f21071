// What the attention kernels of the CPU share: how a call is cut into tasks, and the softmax state
// of a task's rows between tiles and between the two phases of a split call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>

#include "device/thread_pool.h"
#include "kernels/attention.h"

namespace lamina::kernels::cpu {

inline constexpr int64_t kTileKeys = 64;
// Rows (queries x heads of the group) of a chunk: their state fits the second-level cache, and a
// tile of keys and values that was prepared once serves them all.
inline constexpr int64_t kChunkRows = 96;
inline constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// Queries [begin, end) of sequence b, the first at `position`, for one KV head. A row is a query in
// one of the heads that share it: rows go query by query.
struct AttentionTask {
  int64_t b = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t position = 0;
  int64_t kv_head = 0;
  int64_t cached_end = 0;  // the whole tiles before here hold no key of this step
};

// Runs `task` for every task of a call, on the threads of `pool`.
void for_each_attention_task(const RaggedAttentionArgs& args,
                             ThreadPool& pool,
                             const std::function<void(const AttentionTask&)>& run);

// Query heads per KV head.
inline int64_t group_size(const RaggedAttentionArgs& args) {
  return args.q.shape[1] / args.k_cache.shape[1];
}
inline int64_t num_rows(const RaggedAttentionArgs& args, const AttentionTask& task) {
  return (task.end - task.begin) * group_size(args);
}
// Elements of a value.
inline int64_t value_dim(const RaggedAttentionArgs& args) {
  return args.phase == AttentionPhase::kCached ? args.state.shape[2] - 2 : args.out.shape[2];
}
// First position that a query at `position` sees.
inline int64_t first_visible(const RaggedAttentionArgs& args, int64_t position) {
  return args.window ? std::max<int64_t>(0, position - *args.window + 1) : 0;
}

// Positions that a task meets in this phase.
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
};
KeyRange key_range(const RaggedAttentionArgs& args, const AttentionTask& task);

// State of one row: softmax numerators refer to `top`.
struct RowState {
  float top = kNegativeInfinity;
  float total = 0.0F;
};
// States and unnormalised sums [rows, stride] of a task's rows.
struct RowSums {
  RowState* states = nullptr;
  float* sums = nullptr;
  int64_t stride = 0;
};
// What rows hold before their first key of this phase: nothing; a sink, which is a key that was met
// first, with a value of zeros; or what the phase before left.
void start_rows(const RaggedAttentionArgs& args, const AttentionTask& task, const RowSums& rows);
// Leaves them for the phase that follows.
void save_rows(const RaggedAttentionArgs& args, const AttentionTask& task, const RowSums& rows);

}  // namespace lamina::kernels::cpu
