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

KeyRange key_range(const RaggedAttentionArgs& args, const AttentionTask& task) {
  const int64_t visible = first_visible(args, task.position);
  const int64_t end = task.position + task.end - task.begin;
  switch (args.phase) {
    case AttentionPhase::kCached:
      return {std::min(visible, task.cached_end), task.cached_end};
    case AttentionPhase::kRest:
      return {std::max(visible, task.cached_end), end};
    case AttentionPhase::kWhole:
      break;
  }
  return {visible, end};
}

// Tasks that are worth waking a thread for, together: some microseconds of reading keys and values.
int64_t min_tasks(const RaggedAttentionArgs& args, int64_t total) {
  constexpr int64_t kMinElements = 64 * 1024;
  int64_t num_elements = 0;
  for (int64_t b = 0; b < args.batch.num_sequences(); ++b) {
    num_elements += num_chunks(args, b) * args.batch.context_len[static_cast<size_t>(b)];
  }
  num_elements *= args.k_cache.shape[1] * (args.q.shape[2] + value_dim(args));
  return std::max<int64_t>(1, kMinElements * total / std::max<int64_t>(1, num_elements));
}

}  // namespace

int64_t num_tasks_of(const RaggedAttentionArgs& args, int64_t b) {
  return num_chunks(args, b) * args.k_cache.shape[1];
}

int64_t num_tasks(const RaggedAttentionArgs& args) {
  int64_t total = 0;
  for (int64_t b = 0; b < args.batch.num_sequences(); ++b) total += num_tasks_of(args, b);
  return total;
}

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
  task.keys = key_range(args, task);
  return task;
}

void for_each_attention_task(const RaggedAttentionArgs& args,
                             ThreadPool& pool,
                             const std::function<void(const AttentionTask&)>& run) {
  const auto count = [&args](int64_t b) { return num_tasks_of(args, b); };
  const int64_t total = num_tasks(args);
  pool.parallel_for(total, min_tasks(args, total), [&](int64_t begin, int64_t end) {
    for_each_stretch(begin, end, count, [&](int64_t b, int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) run(task_of(args, b, i));
    });
  });
}

}  // namespace lamina::kernels::cpu
