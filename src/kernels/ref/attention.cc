#include "kernels/ref/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ref/element.h"

namespace lamina::kernels::ref {
namespace {

// Where a position of a sequence lies in a cache [P, Hkv, block_size, D].
struct CacheSlot {
  int64_t block = 0;
  int64_t offset = 0;  // of the head's row within the block, in elements
};

CacheSlot find_slot(
    const RaggedBatch& batch, const TensorView& cache, int64_t b, int64_t head, int64_t position) {
  const int64_t block_size = cache.shape[2];
  const int64_t head_dim = cache.shape[3];
  const int64_t entry = b * batch.max_blocks + position / block_size;
  return {batch.block_tables[static_cast<size_t>(entry)],
          (head * block_size + position % block_size) * head_dim};
}

// Attention of one query (token t of sequence b, at `position`) in one head.
void attend(const RaggedAttentionArgs& args, int64_t b, int64_t t, int64_t position, int64_t head) {
  const int64_t head_dim = args.q.shape[2];
  const int64_t value_dim = args.out.shape[2];
  const TensorView& values = args.v_cache.empty() ? args.k_cache : args.v_cache;
  const int64_t kv_head = head / (args.q.shape[1] / args.k_cache.shape[1]);
  const auto head_idx = static_cast<size_t>(head);
  const int64_t begin =
      args.window ? std::max<int64_t>(0, position - *args.window + 1) : int64_t{0};
  std::vector<double> scores;
  for (int64_t j = begin; j <= position; ++j) {
    const CacheSlot slot = find_slot(args.batch, args.k_cache, b, kv_head, j);
    double dot = 0.0;
    for (int64_t d = 0; d < head_dim; ++d) {
      dot += double{get(args.q, t, head * head_dim + d)} *
             double{get(args.k_cache, slot.block, slot.offset + d)};
    }
    double score = dot * double{args.scale};
    if (args.soft_cap) score = *args.soft_cap * std::tanh(score / *args.soft_cap);
    if (!args.alibi_slopes.empty()) {
      score += double{args.alibi_slopes[head_idx]} * static_cast<double>(j - position);
    }
    scores.push_back(score);
  }
  double top = -std::numeric_limits<double>::infinity();
  for (const double score : scores) top = std::max(top, score);
  if (!args.sinks.empty()) top = std::max(top, double{args.sinks[head_idx]});
  double total = args.sinks.empty() ? 0.0 : std::exp(double{args.sinks[head_idx]} - top);
  for (double& score : scores) total += (score = std::exp(score - top));

  for (int64_t d = 0; d < value_dim; ++d) {
    double sum = 0.0;
    for (int64_t j = begin; j <= position; ++j) {
      const CacheSlot slot = find_slot(args.batch, values, b, kv_head, j);
      sum +=
          scores[static_cast<size_t>(j - begin)] * double{get(values, slot.block, slot.offset + d)};
    }
    put(args.out, t, head * value_dim + d, scores.empty() ? 0.0F : static_cast<float>(sum / total));
  }
  if (!args.lse.empty()) put(args.lse, t, head, static_cast<float>(top + std::log(total)));
}

// One head's row of token t, at `position` of sequence b.
void append_row(const TensorView& rows,
                const TensorView& cache,
                const RaggedBatch& batch,
                int64_t b,
                int64_t t,
                int64_t head,
                int64_t position) {
  const int64_t width = rows.shape[2];
  const CacheSlot slot = find_slot(batch, cache, b, head, position);
  for (int64_t d = 0; d < width; ++d) {
    put(cache, slot.block, slot.offset + d, get(rows, t, head * width + d));
  }
}

}  // namespace

void append_kv(const AppendKvArgs& args) {
  const int64_t num_kv_heads = args.k.shape[1];
  for (int64_t b = 0; b < args.batch.num_sequences(); ++b) {
    const int64_t begin = args.batch.query_begin[static_cast<size_t>(b)];
    const int64_t end = args.batch.query_begin[static_cast<size_t>(b) + 1];
    const int64_t context = args.batch.context_len[static_cast<size_t>(b)];
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < num_kv_heads; ++head) {
        const int64_t position = context - (end - t);
        append_row(args.k, args.k_cache, args.batch, b, t, head, position);
        if (!args.v_cache.empty()) {
          append_row(args.v, args.v_cache, args.batch, b, t, head, position);
        }
      }
    }
  }
}

void ragged_attention(const RaggedAttentionArgs& args) {
  for (int64_t b = 0; b < args.batch.num_sequences(); ++b) {
    const int64_t begin = args.batch.query_begin[static_cast<size_t>(b)];
    const int64_t end = args.batch.query_begin[static_cast<size_t>(b) + 1];
    const int64_t context = args.batch.context_len[static_cast<size_t>(b)];
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < args.q.shape[1]; ++head) {
        attend(args, b, t, context - (end - t), head);
      }
    }
  }
}

void merge_partials(const AttentionPartial& into, const AttentionPartial& from) {
  const int64_t head_dim = into.out.shape[2];
  for (int64_t t = 0; t < into.out.shape[0]; ++t) {
    for (int64_t head = 0; head < into.out.shape[1]; ++head) {
      const double a = get(into.lse, t, head);
      const double b = get(from.lse, t, head);
      const double top = std::max(a, b);
      if (top == -std::numeric_limits<double>::infinity()) continue;  // both empty
      const double total = std::exp(a - top) + std::exp(b - top);
      for (int64_t d = 0; d < head_dim; ++d) {
        const int64_t i = head * head_dim + d;
        const double sum = std::exp(a - top) * double{get(into.out, t, i)} +
                           std::exp(b - top) * double{get(from.out, t, i)};
        put(into.out, t, i, static_cast<float>(sum / total));
      }
      put(into.lse, t, head, static_cast<float>(top + std::log(total)));
    }
  }
}

}  // namespace lamina::kernels::ref
