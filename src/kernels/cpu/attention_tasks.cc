#include "kernels/cpu/attention_tasks.h"

#include "base/checked_math.h"

namespace lamina::kernels::cpu {
namespace {

int64_t chunk_queries(const RaggedAttentionArgs& args) {
  return std::max<int64_t>(1, kChunkRows / std::max<int64_t>(1, group_size(args)));
}

int64_t num_chunks(const RaggedAttentionArgs& args, int64_t b) {
  const auto& bounds = args.batch.query_begin;
  const int64_t num_queries =
      int64_t{bounds[static_cast<size_t>(b) + 1]} - bounds[static_cast<size_t>(b)];
  return ceil_div(num_queries, chunk_queries(args));
}

// Task `i` of sequence b, in the order chunk, head.
AttentionTask task_of(const RaggedAttentionArgs& args, int64_t b, int64_t i) {
  const int64_t query_begin = args.batch.query_begin[static_cast<size_t>(b)];
  const int64_t query_end = args.batch.query_begin[static_cast<size_t>(b) + 1];
  const int64_t context = args.batch.context_len[static_cast<size_t>(b)];
  const int64_t num_kv_heads = args.k_cache.shape[1];
  AttentionTask task;
  task.b = b;
  task.kv_head = i % num_kv_heads;
  task.begin = query_begin + i / num_kv_heads * chunk_queries(args);
  task.end = std::min(task.begin + chunk_queries(args), query_end);
  task.position = context - (query_end - task.begin);
  task.cached_end = (context - (query_end - query_begin)) / kTileKeys * kTileKeys;
  return task;
}

// A row of `state`: what a RowState holds, then the sums.
template <typename Copy>
void for_each_saved_row(const RaggedAttentionArgs& args,
                        const AttentionTask& task,
                        const Copy& copy) {
  const int64_t width = args.state.shape[2];
  int64_t row = 0;
  for (int64_t t = task.begin; t < task.end; ++t) {
    float* saved = args.state.row<float>(t) + task.kv_head * group_size(args) * width;
    for (int64_t g = 0; g < group_size(args); ++g, ++row, saved += width) copy(row, saved);
  }
}

// Tasks that are worth waking a thread for, together: some microseconds of reading keys and values.
int64_t min_tasks(const RaggedAttentionArgs& args, int64_t num_tasks) {
  constexpr int64_t kMinElements = 64 * 1024;
  int64_t num_elements = 0;
  for (int64_t b = 0; b < args.batch.num_sequences(); ++b) {
    num_elements += num_chunks(args, b) * args.batch.context_len[static_cast<size_t>(b)];
  }
  num_elements *= args.k_cache.shape[1] * (args.q.shape[2] + value_dim(args));
  return std::max<int64_t>(1, kMinElements * num_tasks / std::max<int64_t>(1, num_elements));
}

}  // namespace

void for_each_attention_task(const RaggedAttentionArgs& args,
                             ThreadPool& pool,
                             const std::function<void(const AttentionTask&)>& run) {
  const int64_t num_kv_heads = args.k_cache.shape[1];
  const int64_t num_sequences = args.batch.num_sequences();
  int64_t num_tasks = 0;
  for (int64_t b = 0; b < num_sequences; ++b) num_tasks += num_chunks(args, b) * num_kv_heads;
  pool.parallel_for(num_tasks, min_tasks(args, num_tasks), [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // task of the sequence at hand
    for (int64_t b = 0; b < num_sequences && first < end; ++b) {
      const int64_t count = num_chunks(args, b) * num_kv_heads;
      for (int64_t i = std::max(begin, first); i < std::min(end, first + count); ++i) {
        run(task_of(args, b, i - first));
      }
      first += count;
    }
  });
}

KeyRange key_range(const RaggedAttentionArgs& args, const AttentionTask& task) {
  const int64_t visible = first_visible(args, task.position);
  const int64_t end = task.position + task.end - task.begin;
  switch (args.phase) {
    case AttentionPhase::kCached:
      return {visible, task.cached_end};
    case AttentionPhase::kRest:
      return {std::max(visible, task.cached_end), end};
    case AttentionPhase::kWhole:
      break;
  }
  return {visible, end};
}

void start_rows(const RaggedAttentionArgs& args, const AttentionTask& task, const RowSums& rows) {
  const int64_t count = num_rows(args, task);
  std::fill_n(rows.sums, count * rows.stride, 0.0F);
  if (args.phase == AttentionPhase::kRest) {
    return for_each_saved_row(args, task, [&](int64_t row, const float* saved) {
      rows.states[row] = {saved[0], saved[1]};
      std::copy_n(saved + 2, value_dim(args), rows.sums + row * rows.stride);
    });
  }
  for (int64_t row = 0; row < count; ++row) {
    rows.states[row] = RowState();
    if (args.sinks.empty()) continue;
    const int64_t head = task.kv_head * group_size(args) + row % group_size(args);
    rows.states[row] = {args.sinks[static_cast<size_t>(head)], 1.0F};
  }
}

void save_rows(const RaggedAttentionArgs& args, const AttentionTask& task, const RowSums& rows) {
  for_each_saved_row(args, task, [&](int64_t row, float* saved) {
    saved[0] = rows.states[row].top;
    saved[1] = rows.states[row].total;
    std::copy_n(rows.sums + row * rows.stride, value_dim(args), saved + 2);
  });
}

}  // namespace lamina::kernels::cpu
