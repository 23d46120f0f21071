#include "kernels/cpu/attention_run.h"

#include <limits>
#include <span>
#include <vector>

#include "base/checked_math.h"
#include "kernels/cpu/scratch.h"

namespace lamina::kernels::cpu {
namespace {

struct Call {
  const RaggedAttentionArgs& args;
  const AttentionKernel& kernel;

  [[nodiscard]] bool is_cached_phase() const { return args.phase == AttentionPhase::kCached; }
};

// All keys of a task, by one thread.
void run_task(const Call& call, const AttentionTask& task) {
  thread_local Scratch scratch;
  const auto size = static_cast<size_t>(TaskRows::num_floats(call.args, task));
  TaskRows rows(call.args, task, call.kernel.base, scratch.floats(size));
  rows.start();
  call.kernel.meet(call.args, task, rows);
  if (call.is_cached_phase()) return rows.save();
  call.kernel.store(call.args, task, {0, num_rows(call.args, task)}, rows.finish());
}

// A task whose segments of keys are dealt out to threads. The sums of all wait in memory until they
// can be merged in order.
struct SplitTask {
  AttentionTask task;
  float* memory = nullptr;

  // Segments that it has keys in.
  [[nodiscard]] int64_t num_parts() const {
    return segment_of(task.keys.end - 1) - segment_of(task.keys.begin) + 1;
  }
  [[nodiscard]] KeyRange keys_of(int64_t part) const {
    const int64_t begin = (segment_of(task.keys.begin) + part) * kSegmentKeys;
    return {std::max(begin, task.keys.begin), std::min(begin + kSegmentKeys, task.keys.end)};
  }
  [[nodiscard]] int64_t num_floats(const RaggedAttentionArgs& args) const {
    return (num_parts() + 1) * RowSums::num_floats(args, task);
  }
  // What rows held before, if anything, and of the first part.
  [[nodiscard]] RowSums merged(const RaggedAttentionArgs& args) const {
    return {args, task, memory};
  }
  [[nodiscard]] RowSums sums_of(const RaggedAttentionArgs& args, int64_t part) const {
    return {args, task, memory + (part + 1) * RowSums::num_floats(args, task)};
  }
};

void run_part(const Call& call, const SplitTask& split, int64_t part) {
  AttentionTask task = split.task;
  task.keys = split.keys_of(part);
  TaskRows rows(
      call.args, task, call.kernel.base, split.merged(call.args), split.sums_of(call.args, part));
  if (part > 0) {
    rows.start_at(task.keys.begin);
    return call.kernel.meet(call.args, task, rows);
  }
  rows.start();
  call.kernel.meet(call.args, task, rows);
  rows.enter(task.keys.end);
}

// What TaskRows does with them one after the other.
void merge_parts(const Call& call, const SplitTask& split, RowRange rows) {
  const RaggedAttentionArgs& args = call.args;
  const RowSums merged = split.merged(args);
  const int64_t last = split.num_parts() - 1;
  for (int64_t part = 1; part < last; ++part) {
    merged.merge(rows, split.sums_of(args, part), call.kernel.base);
  }
  const RowSums open = split.sums_of(args, last);
  const bool stays_open = call.is_cached_phase() && split.task.cached_end % kSegmentKeys != 0;
  if (!stays_open) merged.merge(rows, open, call.kernel.base);
  if (!call.is_cached_phase()) return call.kernel.store(args, split.task, rows, merged);
  if (!stays_open) open.clear(rows);
  save_rows(args, split.task, rows, merged, open);
}

// Tasks with more keys than this are split: more than a quarter of a thread's fair share.
int64_t most_keys(const RaggedAttentionArgs& args, int num_threads) {
  const auto& contexts = args.batch.context_len;
  const bool is_short =
      contexts.empty() || *std::max_element(contexts.begin(), contexts.end()) <= kSegmentKeys;
  if (num_threads == 1 || is_short) return std::numeric_limits<int64_t>::max();
  const int64_t num_kv_heads = args.k_cache.shape[1];
  int64_t total = 0;
  for (int64_t b = 0; b < args.batch.num_sequences(); ++b) {
    for (int64_t i = 0; i < num_tasks_of(args, b); i += num_kv_heads) {
      total += num_kv_heads * task_of(args, b, i).keys.size();
    }
  }
  return std::max(kSegmentKeys, total / (4 * num_threads));
}

// Fewer than 4 a thread, by the definition of most_keys().
void find_split_tasks(const RaggedAttentionArgs& args,
                      int64_t most,
                      std::vector<SplitTask>& found) {
  found.clear();
  for (int64_t b = 0; b < args.batch.num_sequences(); ++b) {
    if (args.batch.context_len[static_cast<size_t>(b)] <= most) continue;
    for (int64_t i = 0; i < num_tasks_of(args, b); ++i) {
      const AttentionTask task = task_of(args, b, i);
      if (task.keys.size() > most) found.push_back({.task = task});
    }
  }
}

// Parts of several tasks side by side, then rows.
void run_split_tasks(const Call& call, std::span<SplitTask> tasks, ThreadPool& pool) {
  int64_t num_floats = 0;
  int64_t num_parts = 0;
  int64_t total_rows = 0;
  int64_t num_merged = 0;  // elements
  for (const SplitTask& split : tasks) {
    const int64_t count = num_rows(call.args, split.task);
    num_floats += split.num_floats(call.args);
    num_parts += split.num_parts();
    total_rows += count;
    num_merged += count * split.num_parts() * (value_dim(call.args) + 2);
  }
  thread_local Scratch scratch;
  float* memory = scratch.floats(static_cast<size_t>(num_floats));
  for (SplitTask& split : tasks) {
    split.memory = memory;
    memory += split.num_floats(call.args);
  }
  const auto parts_of = [&](int64_t i) { return tasks[static_cast<size_t>(i)].num_parts(); };
  pool.parallel_for(num_parts, 1, [&](int64_t begin, int64_t end) {
    for_each_stretch(begin, end, parts_of, [&](int64_t i, int64_t from, int64_t to) {
      for (int64_t part = from; part < to; ++part) {
        run_part(call, tasks[static_cast<size_t>(i)], part);
      }
    });
  });
  const auto rows_of = [&](int64_t i) {
    return num_rows(call.args, tasks[static_cast<size_t>(i)].task);
  };
  constexpr int64_t kMinElements = 16 * 1024;  // some microseconds: worth waking a thread for
  const int64_t grain = ceil_div(kMinElements * total_rows, num_merged);
  pool.parallel_for(total_rows, grain, [&](int64_t begin, int64_t end) {
    for_each_stretch(begin, end, rows_of, [&](int64_t i, int64_t from, int64_t to) {
      merge_parts(call, tasks[static_cast<size_t>(i)], {from, to});
    });
  });
}

}  // namespace

void run_attention(const RaggedAttentionArgs& args,
                   const AttentionKernel& kernel,
                   ThreadPool& pool) {
  const Call call{args, kernel};
  const int64_t most = most_keys(args, pool.num_threads());
  thread_local std::vector<SplitTask> found;
  find_split_tasks(args, most, found);
  // As many at a time as keep the threads busy: that bounds the memory of their sums.
  const int64_t parts_wanted = 16 * pool.num_threads();
  for (std::span<SplitTask> left = found; !left.empty();) {
    size_t count = 0;
    for (int64_t parts = 0; count < left.size() && parts < parts_wanted; ++count) {
      parts += left[count].num_parts();
    }
    run_split_tasks(call, left.first(count), pool);
    left = left.subspan(count);
  }
  if (static_cast<int64_t>(found.size()) == num_tasks(args)) return;
  for_each_attention_task(args, pool, [&](const AttentionTask& task) {
    if (task.keys.size() <= most) run_task(call, task);
  });
}

}  // namespace lamina::kernels::cpu
