// A ragged batch over a paged cache: for the tests of attention and of appending to it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/checked_math.h"
#include "kernels/ref/attention.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {

struct Dimensions {
  int64_t num_heads = 1;
  int64_t num_kv_heads = 1;
  int64_t head_dim = 16;
  int64_t block_size = 16;
  DType q_dtype = DType::kF32;
  DType kv_dtype = DType::kF32;
  KvOrder order = KvOrder::kRows;
};

struct SequenceSpec {
  int64_t context = 0;
  int64_t num_queries = 0;
};

// A ragged batch whose tokens are k and v of whole sequences, in a paged cache with shuffled
// blocks. Blocks that nobody owns, and the unused ends of others, hold NaN, or codes
// whose scale is NaN.
class Fixture {
 public:
  Fixture(const Dimensions& dimensions, const std::vector<SequenceSpec>& specs, uint64_t seed)
      : dimensions_(dimensions), specs_(specs) {
    Rng rng(seed);
    int64_t num_blocks = 3;
    query_begin_.push_back(0);
    for (const SequenceSpec& spec : specs) {
      num_blocks += ceil_div(spec.context, dimensions.block_size);
      max_blocks_ = std::max(max_blocks_, ceil_div(spec.context, dimensions.block_size) + 1);
      context_len_.push_back(static_cast<int32_t>(spec.context));
      query_begin_.push_back(query_begin_.back() + static_cast<int32_t>(spec.num_queries));
    }
    fill_tables(num_blocks, rng);
    const Shape cache = {
        num_blocks, dimensions.num_kv_heads, dimensions.block_size, dimensions.head_dim};
    k_cache_ = TestTensor(dimensions.kv_dtype, cache);
    v_cache_ = TestTensor(dimensions.kv_dtype, cache);
    k_cache_.poison();
    v_cache_.poison();
    const bool has_scales = is_quantized(dimensions.kv_dtype);
    if (has_scales) {
      const Shape scales = {cache[0], cache[1], cache[2]};
      k_scales_ = TestTensor(DType::kF32, scales);
      v_scales_ = TestTensor(DType::kF32, scales);
      k_scales_.poison();
      v_scales_.poison();
    }
    const DType token_dtype = has_scales ? DType::kF32 : dimensions.kv_dtype;
    for (size_t b = 0; b < specs.size(); ++b) {
      const Shape tokens = {specs[b].context, dimensions.num_kv_heads, dimensions.head_dim};
      keys_.push_back(TestTensor::random(token_dtype, tokens, rng, 2.0F));
      values_.push_back(TestTensor::random(token_dtype, tokens, rng));
      append_sequence(b);
    }
    q_ = TestTensor::random(
        dimensions.q_dtype, {query_begin_.back(), dimensions.num_heads, dimensions.head_dim}, rng);
  }

  [[nodiscard]] RaggedBatch batch() const {
    return {query_begin_, context_len_, tables_, max_blocks_};
  }
  [[nodiscard]] RaggedAttentionArgs args(const TestTensor& out, const TestTensor& lse) const {
    RaggedAttentionArgs args{q_.view(),
                             k_cache_.view(),
                             v_cache_.view(),
                             out.view(),
                             lse.view(),
                             batch(),
                             1.0F / std::sqrt(static_cast<float>(dimensions_.head_dim)),
                             std::nullopt};
    args.order = dimensions_.order;
    args.k_scales = k_scales_.view();
    args.v_scales = v_scales_.view();
    return args;
  }
  [[nodiscard]] TestTensor make_out(DType dtype) const {
    TestTensor out(dtype, q_.view().shape);
    out.poison();
    return out;
  }
  [[nodiscard]] TestTensor make_lse() const {
    TestTensor lse(DType::kF32, {q_.view().shape[0], dimensions_.num_heads});
    lse.poison();
    return lse;
  }
  // The naive definition: softmax over the sequence's own keys, no cache, no blocks.
  void expect_naive(const TestTensor& out, std::optional<int32_t> window, const std::string& what);

  TestTensor q_;
  TestTensor k_cache_;
  TestTensor v_cache_;
  TestTensor k_scales_;  // of codes
  TestTensor v_scales_;
  std::vector<int32_t> query_begin_;
  std::vector<int32_t> context_len_;
  std::vector<int32_t> tables_;
  int64_t max_blocks_ = 1;
  Dimensions dimensions_;
  std::vector<SequenceSpec> specs_;
  std::vector<TestTensor> keys_;
  std::vector<TestTensor> values_;

 private:
  void fill_tables(int64_t num_blocks, Rng& rng) {
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks));
    std::iota(ids.begin(), ids.end(), 0);
    for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[rng.next_below(i)]);
    // -1 where no block is needed: it must never be read.
    tables_.assign(specs_.size() * static_cast<size_t>(max_blocks_), -1);
    for (size_t b = 0; b < specs_.size(); ++b) {
      for (int64_t i = 0; i < ceil_div(specs_[b].context, dimensions_.block_size); ++i) {
        tables_[b * static_cast<size_t>(max_blocks_) + static_cast<size_t>(i)] = ids.back();
        ids.pop_back();
      }
    }
  }
  void append_sequence(size_t b) {
    const std::vector<int32_t> bounds = {0, static_cast<int32_t>(specs_[b].context)};
    const std::span<const int32_t> table(tables_.data() + b * static_cast<size_t>(max_blocks_),
                                         static_cast<size_t>(max_blocks_));
    const RaggedBatch whole = {bounds, std::span(context_len_).subspan(b, 1), table, max_blocks_};
    ref::append_kv({keys_[b].view(),
                    values_[b].view(),
                    k_cache_.view(),
                    v_cache_.view(),
                    slots_of(whole, dimensions_.block_size),
                    dimensions_.order,
                    k_scales_.view(),
                    v_scales_.view()});
  }
};

inline void Fixture::expect_naive(const TestTensor& out,
                                  std::optional<int32_t> window,
                                  const std::string& what) {
  const int64_t head_dim = dimensions_.head_dim;
  const int64_t group = dimensions_.num_heads / dimensions_.num_kv_heads;
  for (size_t b = 0; b < specs_.size(); ++b) {
    for (int64_t i = 0; i < specs_[b].num_queries; ++i) {
      const int64_t t = query_begin_[b] + i;
      const int64_t position = specs_[b].context - specs_[b].num_queries + i;
      for (int64_t head = 0; head < dimensions_.num_heads; ++head) {
        std::vector<double> sums(static_cast<size_t>(head_dim), 0.0);
        double total = 0.0;
        for (int64_t j = 0; j <= position; ++j) {
          if (window && j <= position - *window) continue;
          const int64_t row = (j * dimensions_.num_kv_heads + head / group) * head_dim;
          double dot = 0.0;
          for (int64_t d = 0; d < head_dim; ++d) {
            dot += double{q_.at((t * dimensions_.num_heads + head) * head_dim + d)} *
                   double{keys_[b].at(row + d)};
          }
          const double weight = std::exp(dot / std::sqrt(static_cast<double>(head_dim)));
          total += weight;
          for (int64_t d = 0; d < head_dim; ++d) {
            sums[static_cast<size_t>(d)] += weight * double{values_[b].at(row + d)};
          }
        }
        for (int64_t d = 0; d < head_dim; ++d) {
          const double expected = sums[static_cast<size_t>(d)] / total;
          ASSERT_NEAR(out.at((t * dimensions_.num_heads + head) * head_dim + d), expected, 3e-6)
              << what << " sequence " << b << " query " << i << " head " << head;
        }
      }
    }
  }
}

// Calls body() with the dimensions, in each order that their caches may have.
template <typename Body>
void for_each_order(Dimensions dimensions, const Body& body) {
  dimensions.order = KvOrder::kRows;
  body(dimensions);
  dimensions.order = preferred_order({.dtype = dimensions.kv_dtype,
                                      .q_dtype = dimensions.q_dtype,
                                      .block_size = dimensions.block_size,
                                      .key_dim = dimensions.head_dim,
                                      .value_dim = dimensions.head_dim});
  if (dimensions.order != KvOrder::kRows) body(dimensions);
}

inline std::vector<SequenceSpec> odd_batch(int64_t block_size) {
  return {{block_size, 1},
          {1, 1},
          {0, 0},
          {block_size - 1, std::min<int64_t>(3, block_size - 1)},
          {block_size + 1, block_size + 1},
          {70, 40},
          {64, 1},
          {129, 2}};
}

}  // namespace lamina::kernels
