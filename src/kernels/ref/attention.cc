#include "kernels/ref/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ref/element.h"

namespace lamina::kernels::ref {
namespace {

// Where a token lies in a cache [P, Hkv, block_size, D]: row `token` of a head of a block.
struct CacheSlot {
  int64_t block = 0;
  int64_t head = 0;
  int64_t token = 0;
};

CacheSlot find_slot(
    const RaggedBatch& batch, const TensorView& cache, int64_t b, int64_t head, int64_t position) {
  const int64_t block_size = cache.shape[2];
  const int64_t entry = b * batch.max_blocks + position / block_size;
  return {batch.block_tables[static_cast<size_t>(entry)], head, position % block_size};
}

// The place of element `i` of a token within its block. A cache of keys and one of values differ in
// what stands in pairs.
int64_t place_of(
    const TensorView& cache, const CacheSlot& slot, int64_t i, KvOrder order, bool is_key) {
  const int64_t block_size = cache.shape[2];
  const int64_t width = cache.shape[3];
  const int64_t head_begin = slot.head * block_size * width;
  if (order == KvOrder::kRows) return head_begin + slot.token * width + i;
  if (is_key) return head_begin + (i / 2 * block_size + slot.token) * 2 + i % 2;
  return head_begin + (slot.token / 2 * width + i) * 2 + slot.token % 2;
}

// Element `i` of a token, times the token's scale if the cache has scales.
float get_cached(const TensorView& cache,
                 const TensorView& scales,
                 const CacheSlot& slot,
                 int64_t i,
                 KvOrder order,
                 bool is_key) {
  const float element = get(cache, slot.block, place_of(cache, slot, i, order, is_key));
  if (scales.empty()) return element;
  return element * get(scales, slot.block, slot.head * cache.shape[2] + slot.token);
}

// Positions that the query at `position` sees, of those whose blocks are held here.
std::vector<int64_t> visible_keys(const RaggedAttentionArgs& args, int64_t b, int64_t position) {
  std::vector<int64_t> keys;
  for (int64_t j = 0; j <= position; ++j) {
    if (args.window && j <= position - *args.window) continue;
    if (find_slot(args.batch, args.k_cache, b, 0, j).block != kNoBlock) keys.push_back(j);
  }
  return keys;
}

double score_of(const RaggedAttentionArgs& args,
                const CacheSlot& key,
                int64_t t,
                int64_t head,
                int64_t distance) {
  const int64_t head_dim = args.q.shape[2];
  double dot = 0.0;
  for (int64_t d = 0; d < head_dim; ++d) {
    dot += double{get(args.q, t, head * head_dim + d)} *
           double{get_cached(args.k_cache, args.k_scales, key, d, args.order, true)};
  }
  double score = dot * double{args.scale};
  if (args.soft_cap) score = *args.soft_cap * std::tanh(score / *args.soft_cap);
  if (!args.alibi_slopes.empty()) {
    score += double{args.alibi_slopes[static_cast<size_t>(head)]} * static_cast<double>(distance);
  }
  return score;
}

// Attention of one query (token t of sequence b, at `position`) in one head.
void attend(const RaggedAttentionArgs& args, int64_t b, int64_t t, int64_t position, int64_t head) {
  const int64_t value_dim = args.out.shape[2];
  const TensorView& values = args.v_cache.empty() ? args.k_cache : args.v_cache;
  const TensorView& scales = args.v_cache.empty() ? args.k_scales : args.v_scales;
  const int64_t kv_head = head / (args.q.shape[1] / args.k_cache.shape[1]);
  const std::vector<int64_t> keys = visible_keys(args, b, position);
  std::vector<double> weights;
  double top = -std::numeric_limits<double>::infinity();
  for (const int64_t j : keys) {
    const CacheSlot key = find_slot(args.batch, args.k_cache, b, kv_head, j);
    weights.push_back(score_of(args, key, t, head, j - position));
    top = std::max(top, weights.back());
  }
  double total = 0.0;
  if (!args.sinks.empty()) {
    const double sink = args.sinks[static_cast<size_t>(head)];
    top = std::max(top, sink);
    total = std::exp(sink - top);
  }
  for (double& weight : weights) total += (weight = std::exp(weight - top));

  for (int64_t d = 0; d < value_dim; ++d) {
    double sum = 0.0;
    for (size_t i = 0; i < keys.size(); ++i) {
      const CacheSlot slot = find_slot(args.batch, values, b, kv_head, keys[i]);
      const bool is_key = args.v_cache.empty();
      sum += weights[i] * double{get_cached(values, scales, slot, d, args.order, is_key)};
    }
    put(args.out, t, head * value_dim + d, keys.empty() ? 0.0F : static_cast<float>(sum / total));
  }
  if (!args.lse.empty()) put(args.lse, t, head, static_cast<float>(top + std::log(total)));
}

// The largest magnitude of elements [begin, end) of a token; NaN unless all are numbers.
float largest_of(const TensorView& rows, int64_t t, int64_t begin, int64_t end) {
  float largest = 0.0F;
  for (int64_t i = begin; i < end; ++i) {
    const float element = std::fabs(get(rows, t, i));
    if (!std::isfinite(element)) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, element);
  }
  return largest;
}

// A token's rows of all heads, quantised.
void append_codes(const AppendKvArgs& args,
                  const TensorView& rows,
                  const TensorView& cache,
                  const TensorView& scales,
                  int64_t t,
                  bool is_key) {
  const int64_t block_size = cache.shape[2];
  const int64_t width = cache.shape[3];
  const int64_t slot = args.slot_mapping[static_cast<size_t>(t)];
  const float range = cache.dtype == DType::kI8 ? 127.0F : kLargestE4M3;
  for (int64_t head = 0; head < rows.shape[1]; ++head) {
    const CacheSlot at = {slot / block_size, head, slot % block_size};
    const float largest = largest_of(rows, t, head * width, (head + 1) * width);
    const bool is_zero = !(largest >= 0x1p-96F);
    const float scale = largest < 0x1p-96F ? 0.0F : largest / range;
    put(scales, at.block, head * block_size + at.token, scale);
    for (int64_t i = 0; i < width; ++i) {
      const float element = get(rows, t, head * width + i);
      put(cache,
          at.block,
          place_of(cache, at, i, args.order, is_key),
          is_zero ? 0.0F : element * (range / largest));
    }
  }
}

}  // namespace

void append_kv(const AppendKvArgs& args) {
  const auto append = [&](const TensorView& rows, const TensorView& cache, int64_t t, bool is_key) {
    const int64_t block_size = cache.shape[2];
    const int64_t width = cache.shape[3];
    const int64_t slot = args.slot_mapping[static_cast<size_t>(t)];
    for (int64_t i = 0; i < rows.shape[1] * width; ++i) {
      const CacheSlot at = {slot / block_size, i / width, slot % block_size};
      put(cache, at.block, place_of(cache, at, i % width, args.order, is_key), get(rows, t, i));
    }
  };
  for (int64_t token = 0; token < args.k.shape[0]; ++token) {
    if (args.slot_mapping[static_cast<size_t>(token)] == kNoSlot) continue;
    if (is_quantized(args.k_cache.dtype)) {
      append_codes(args, args.k, args.k_cache, args.k_scales, token, true);
      if (args.v_cache.empty()) continue;
      append_codes(args, args.v, args.v_cache, args.v_scales, token, false);
      continue;
    }
    append(args.k, args.k_cache, token, true);
    if (!args.v_cache.empty()) append(args.v, args.v_cache, token, false);
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
