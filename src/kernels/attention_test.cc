#include "kernels/attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/checked_math.h"
#include "kernels/ref/attention.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

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
// blocks. Blocks that nobody owns, and the unused ends of others, hold NaN.
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
    for (size_t b = 0; b < specs.size(); ++b) {
      const Shape tokens = {specs[b].context, dimensions.num_kv_heads, dimensions.head_dim};
      keys_.push_back(TestTensor::random(dimensions.kv_dtype, tokens, rng, 2.0F));
      values_.push_back(TestTensor::random(dimensions.kv_dtype, tokens, rng));
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
                    dimensions_.order});
  }
};

void Fixture::expect_naive(const TestTensor& out,
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

std::vector<SequenceSpec> odd_batch(int64_t block_size) {
  return {{block_size, 1},
          {1, 1},
          {0, 0},
          {block_size - 1, std::min<int64_t>(3, block_size - 1)},
          {block_size + 1, block_size + 1},
          {70, 40},
          {64, 1},
          {129, 2}};
}

TEST(RaggedAttention, ReferenceAgreesWithTheDefinition) {
  for (const auto& window : {std::optional<int32_t>(), std::optional<int32_t>(17)}) {
    Fixture fixture({.num_heads = 6, .num_kv_heads = 3}, odd_batch(16), 21);
    const TestTensor out = fixture.make_out(DType::kF32);
    RaggedAttentionArgs args = fixture.args(out, fixture.make_lse());
    args.lse = TensorView();
    args.window = window;
    ref::ragged_attention(args);
    fixture.expect_naive(out, window, "ref");
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

void expect_cpu_agrees_in_order(const Dimensions& dimensions,
                                std::optional<int32_t> window,
                                DType out_dtype,
                                uint64_t seed) {
  const Fixture fixture(dimensions, odd_batch(dimensions.block_size), seed);
  const TestTensor out = fixture.make_out(out_dtype);
  const TestTensor lse = fixture.make_lse();
  const TestTensor expected_out = fixture.make_out(out_dtype);
  const TestTensor expected_lse = fixture.make_lse();
  RaggedAttentionArgs args = fixture.args(out, lse);
  args.window = window;
  ThreadPool pool(2);
  ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
  args.out = expected_out.view();
  args.lse = expected_lse.view();
  ref::ragged_attention(args);
  const std::string what = fmt::format("heads {}/{} dim {} block {} q {} kv {} window {} seed {}",
                                       dimensions.num_heads,
                                       dimensions.num_kv_heads,
                                       dimensions.head_dim,
                                       dimensions.block_size,
                                       dtype_name(dimensions.q_dtype),
                                       dtype_name(dimensions.kv_dtype),
                                       window.value_or(-1),
                                       seed);
  const float magnitude = attention_magnitude(dimensions.q_dtype, dimensions.kv_dtype, 1.0F);
  expect_near(out, expected_out, magnitude, what);
  expect_near(lse, expected_lse, 4.0F, what + " lse");
}

void expect_cpu_agrees(const Dimensions& dimensions,
                       std::optional<int32_t> window,
                       DType out_dtype,
                       uint64_t seed) {
  for_each_order(dimensions, [&](const Dimensions& ordered) {
    expect_cpu_agrees_in_order(ordered, window, out_dtype, seed);
  });
}

TEST(RaggedAttention, AgreesWithReferenceOverShapes) {
  for_each_target([&] {
    uint64_t seed = 100;
    for (const auto& [num_heads, num_kv_heads] :
         {std::pair{1, 1}, {3, 3}, {8, 1}, {8, 8}, {9, 3}, {24, 8}}) {
      for (const int64_t head_dim : {8, 16, 32, 64, 80, 128}) {
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          const Dimensions dimensions = {.num_heads = num_heads,
                                         .num_kv_heads = num_kv_heads,
                                         .head_dim = head_dim,
                                         .q_dtype = dtype,
                                         .kv_dtype = dtype};
          expect_cpu_agrees(dimensions, std::nullopt, DType::kF32, ++seed);
        }
      }
    }
  });
}

TEST(RaggedAttention, AgreesWithReferenceOverBlocksAndWindows) {
  for_each_target([&] {
    uint64_t seed = 200;
    for (const int64_t block_size : {1, 2, 5, 16, 32, 48, 100}) {
      for (const int32_t window : {0, 1, 2, 16, 63, 64, 65, 1000}) {
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          expect_cpu_agrees({.num_heads = 4,
                             .num_kv_heads = 2,
                             .block_size = block_size,
                             .q_dtype = dtype,
                             .kv_dtype = dtype},
                            window,
                            DType::kF32,
                            ++seed);
        }
      }
    }
  });
}

TEST(RaggedAttention, AgreesWithReferenceOverDTypes) {
  for_each_target([&] {
    uint64_t seed = 300;
    for (const DType q_dtype : kFloatDTypes) {
      for (const DType kv_dtype : kFloatDTypes) {
        for (const DType out_dtype : {DType::kF32, q_dtype}) {
          for (const int64_t head_dim : {24, 64}) {
            expect_cpu_agrees({.num_heads = 6,
                               .num_kv_heads = 2,
                               .head_dim = head_dim,
                               .q_dtype = q_dtype,
                               .kv_dtype = kv_dtype},
                              20,
                              out_dtype,
                              ++seed);
          }
        }
      }
    }
  });
}

// Row t of `out` when queries [position, position + count) of the fixture's only sequence are asked
// alone, with `num_threads` threads.
TestTensor attend_part(const Fixture& fixture,
                       int64_t position,
                       int64_t count,
                       std::optional<int32_t> window,
                       int num_threads) {
  const std::vector<int32_t> bounds = {0, static_cast<int32_t>(count)};
  const std::vector<int32_t> contexts = {static_cast<int32_t>(position + count)};
  RaggedAttentionArgs args = fixture.args(fixture.q_, fixture.q_);
  args.q = fixture.q_.view().rows(position, count);
  TestTensor out(DType::kF32, args.q.shape);
  args.out = out.view();
  args.lse = TensorView();
  args.batch.query_begin = bounds;
  args.batch.context_len = contexts;
  args.window = window;
  ThreadPool pool(num_threads);
  EXPECT_TRUE(ragged_attention(args, StreamView(pool)).ok());
  return out;
}

// A sequence asked in chunks of any size gives the bits that it gives as a whole.
void expect_chunks_agree(const Dimensions& dimensions, std::optional<int32_t> window) {
  const int64_t length = 150;
  const Fixture fixture(dimensions, {{length, length}}, 5);
  const TestTensor whole = attend_part(fixture, 0, length, window, 2);
  ASSERT_EQ(attend_part(fixture, 0, length, window, 1), whole);
  for (const int64_t chunk : {1, 7, 64}) {
    for (int64_t begin = 0; begin < length; begin += chunk) {
      const int64_t count = std::min(chunk, length - begin);
      const TestTensor part = attend_part(fixture, begin, count, window, 2);
      ASSERT_EQ(
          0,
          std::memcmp(
              part.view().data, whole.view().rows(begin, count).data, part.view().size_bytes()))
          << "position " << begin << " chunk " << chunk << " q " << dtype_name(dimensions.q_dtype)
          << " kv " << dtype_name(dimensions.kv_dtype);
    }
  }
}

TEST(RaggedAttention, DecodeAndPrefillGiveTheSameBits) {
  for_each_target([&] {
    for (const auto& window : {std::optional<int32_t>(), std::optional<int32_t>(50)}) {
      for (const DType kv_dtype : kFloatDTypes) {
        for (const DType q_dtype : {DType::kF32, kv_dtype}) {
          for_each_order(
              {.num_heads = 6,
               .num_kv_heads = 2,
               .head_dim = 48,
               .q_dtype = q_dtype,
               .kv_dtype = kv_dtype},
              [&](const Dimensions& dimensions) { expect_chunks_agree(dimensions, window); });
        }
      }
    }
  });
}

TEST(RaggedAttention, SequencesDoNotTouchEachOther) {
  const Fixture fixture({.num_heads = 4, .num_kv_heads = 2, .head_dim = 32}, odd_batch(16), 6);
  const TestTensor out = fixture.make_out(DType::kF32);
  const TestTensor lse = fixture.make_lse();
  ThreadPool pool(2);
  ASSERT_TRUE(ragged_attention(fixture.args(out, lse), StreamView(pool)).ok());
  for (size_t b = 0; b < fixture.specs_.size(); ++b) {
    const int64_t begin = fixture.query_begin_[b];
    const int64_t count = fixture.specs_[b].num_queries;
    const std::vector<int32_t> bounds = {0, static_cast<int32_t>(count)};
    RaggedAttentionArgs args = fixture.args(out, lse);
    args.q = args.q.rows(begin, count);
    const TestTensor alone(DType::kF32, args.q.shape);
    args.out = alone.view();
    args.lse = TensorView();
    args.batch.query_begin = bounds;
    args.batch.context_len = args.batch.context_len.subspan(b, 1);
    const auto width = static_cast<size_t>(fixture.max_blocks_);
    args.batch.block_tables = args.batch.block_tables.subspan(b * width, width);
    ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
    ASSERT_EQ(0,
              std::memcmp(
                  alone.view().data, out.view().rows(begin, count).data, alone.view().size_bytes()))
        << "sequence " << b;
  }
}

// A worker with some of the heads computes the same bits as one with all.
TEST(RaggedAttention, HeadsDoNotTouchEachOther) {
  const Fixture fixture(
      {.num_heads = 9, .num_kv_heads = 3, .head_dim = 16, .block_size = 4}, {{33, 5}, {9, 1}}, 8);
  const TestTensor out = fixture.make_out(DType::kF32);
  const TestTensor lse = fixture.make_lse();
  ThreadPool pool(1);
  ASSERT_TRUE(ragged_attention(fixture.args(out, lse), StreamView(pool)).ok());
  RaggedAttentionArgs args = fixture.args(out, lse);
  const TestTensor part(DType::kF32, {6, 3, 16});
  args.q = args.q.columns(3, 3);
  args.k_cache = args.k_cache.columns(1, 1);
  args.v_cache = args.v_cache.columns(1, 1);
  args.out = part.view();
  args.lse = TensorView();
  ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
  for (int64_t t = 0; t < 6; ++t) {
    for (int64_t i = 0; i < 3 * 16; ++i) {
      ASSERT_EQ(part.at(t * 48 + i), out.at(t * 144 + 48 + i));
    }
  }
}

TEST(RaggedAttention, AWindowOfNothingIsTheIdentity) {
  const Fixture fixture({}, {{3, 2}}, 9);
  const TestTensor out = fixture.make_out(DType::kF32);
  const TestTensor lse = fixture.make_lse();
  RaggedAttentionArgs args = fixture.args(out, lse);
  args.window = 0;
  ThreadPool pool(1);
  ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
  for (int64_t i = 0; i < out.size(); ++i) ASSERT_EQ(out.at(i), 0.0F);
  for (int64_t i = 0; i < lse.size(); ++i) ASSERT_EQ(lse.at(i), -kInfinity);
}

TEST(RaggedAttention, RefusesWhatDoesNotFit) {
  Fixture fixture({.num_heads = 4, .num_kv_heads = 2}, {{20, 3}, {5, 1}}, 10);
  TestTensor out = fixture.make_out(DType::kF32);
  const TestTensor before = out;
  const TestTensor lse = fixture.make_lse();
  ThreadPool pool(1);
  const RaggedAttentionArgs good = fixture.args(out, lse);
  const auto expect_refused = [&](const RaggedAttentionArgs& args, const char* what) {
    EXPECT_EQ(ragged_attention(args, StreamView(pool)).code(), StatusCode::kInvalidArgument)
        << what;
    EXPECT_EQ(out, before) << what;
  };
  const auto with_batch = [&](auto change) {
    RaggedAttentionArgs args = good;
    change(args.batch);
    return args;
  };
  using Ids = std::vector<int32_t>;
  const Ids descending = {0, 5, 4};
  const Ids short_bounds = {0, 4};
  const Ids long_bounds = {0, 3, 5};
  const Ids late_bounds = {1, 3, 4};
  const Ids few_tokens = {2, 5};
  const Ids negative = {20, -1};
  const Ids huge = {std::numeric_limits<int32_t>::max(), 5};
  Ids bad_high = fixture.tables_;
  bad_high[1] = static_cast<int32_t>(fixture.k_cache_.view().shape[0]);
  Ids bad_low = fixture.tables_;
  bad_low[0] = kNoBlock - 1;
  expect_refused(with_batch([&](RaggedBatch& b) { b.query_begin = descending; }), "descending");
  expect_refused(with_batch([&](RaggedBatch& b) { b.query_begin = short_bounds; }), "short");
  expect_refused(with_batch([&](RaggedBatch& b) { b.query_begin = long_bounds; }), "long");
  expect_refused(with_batch([&](RaggedBatch& b) { b.query_begin = late_bounds; }), "late");
  expect_refused(with_batch([&](RaggedBatch& b) { b.query_begin = {}; }), "no bounds");
  expect_refused(with_batch([&](RaggedBatch& b) { b.context_len = few_tokens; }), "few tokens");
  expect_refused(with_batch([&](RaggedBatch& b) { b.context_len = negative; }), "negative");
  expect_refused(with_batch([&](RaggedBatch& b) { b.context_len = huge; }), "past the table");
  expect_refused(with_batch([&](RaggedBatch& b) { b.block_tables = bad_high; }), "high block");
  expect_refused(with_batch([&](RaggedBatch& b) { b.block_tables = bad_low; }), "low block");
  expect_refused(with_batch([&](RaggedBatch& b) { b.max_blocks = -1; }), "negative width");
  expect_refused(
      with_batch([&](RaggedBatch& b) { b.max_blocks = std::numeric_limits<int64_t>::max(); }),
      "huge width");

  std::vector<RaggedAttentionArgs> bad(6, good);
  bad[0].q = good.q.columns(0, 3);
  bad[1].v_cache.dtype = DType::kBF16;
  bad[2].out.dtype = DType::kF16;
  bad[3].lse = good.out;
  bad[4].window = -1;
  bad[5].k_cache = good.q;
  for (const RaggedAttentionArgs& args : bad) expect_refused(args, "views");

  // Blocks that left the window may be gone.
  RaggedAttentionArgs windowed = good;
  windowed.batch.block_tables = bad_low;
  windowed.window = 2;
  EXPECT_TRUE(ragged_attention(windowed, StreamView(pool)).ok());
}

TEST(AppendKv, AgreesWithReferenceAndReplays) {
  for_each_target([&] {
    for (const DType dtype : kFloatDTypes) {
      for (const DType kv_dtype : kFloatDTypes) {
        const Fixture fixture({.num_heads = 3,
                               .num_kv_heads = 3,
                               .head_dim = 24,
                               .q_dtype = dtype,
                               .kv_dtype = kv_dtype},
                              odd_batch(16),
                              11);
        Rng rng(12);
        // Values beyond f16, NaN excepted, must convert as the scalar functions do.
        const TestTensor k = TestTensor::random(dtype, fixture.q_.view().shape, rng, 1e5F);
        const TestTensor v = TestTensor::random(dtype, fixture.q_.view().shape, rng, 1e-5F);
        TestTensor k_cache = fixture.k_cache_;
        TestTensor v_cache = fixture.v_cache_;
        const std::vector<int64_t> slots = slots_of(fixture.batch(), 16);
        ref::append_kv({k.view(), v.view(), k_cache.view(), v_cache.view(), slots});
        TestTensor k_actual = fixture.k_cache_;
        TestTensor v_actual = fixture.v_cache_;
        ThreadPool pool(2);
        const AppendKvArgs args = {k.view(), v.view(), k_actual.view(), v_actual.view(), slots};
        for (int replay = 0; replay < 2; ++replay) {
          ASSERT_TRUE(append_kv(args, StreamView(pool)).ok());
          ASSERT_EQ(k_actual, k_cache) << dtype_name(dtype) << " to " << dtype_name(kv_dtype);
          ASSERT_EQ(v_actual, v_cache);
        }
      }
    }
  });
}

TEST(AppendKv, PutsPairsWhereTheReferenceDoes) {
  cpu::set_bf16_dot_use(cpu::Bf16DotUse::kWhereSupported);
  Dimensions dimensions{.num_heads = 3,
                        .num_kv_heads = 3,
                        .head_dim = 32,
                        .q_dtype = DType::kBF16,
                        .kv_dtype = DType::kBF16,
                        .order = KvOrder::kPairs};
  const Fixture fixture(dimensions, odd_batch(16), 11);
  Rng rng(12);
  const TestTensor k = TestTensor::random(DType::kBF16, fixture.q_.view().shape, rng);
  const TestTensor v = TestTensor::random(DType::kBF16, fixture.q_.view().shape, rng);
  const TestTensor k_cache = fixture.k_cache_;
  const TestTensor v_cache = fixture.v_cache_;
  const TestTensor k_actual = fixture.k_cache_;
  const TestTensor v_actual = fixture.v_cache_;
  const std::vector<int64_t> slots = slots_of(fixture.batch(), 16);
  ref::append_kv({k.view(), v.view(), k_cache.view(), v_cache.view(), slots, KvOrder::kPairs});
  ThreadPool pool(2);
  const AppendKvArgs args = {
      k.view(), v.view(), k_actual.view(), v_actual.view(), slots, KvOrder::kPairs};
  const Status status = append_kv(args, StreamView(pool));
  if (cpu::uses_bf16_dot()) {
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(k_actual, k_cache);
    EXPECT_EQ(v_actual, v_cache);
  } else {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  }
  // The order of rows is another one.
  const TestTensor in_rows = fixture.k_cache_;
  ref::append_kv({k.view(), v.view(), in_rows.view(), v_cache.view(), slots});
  EXPECT_FALSE(in_rows == k_cache);
  cpu::set_bf16_dot_use(cpu::Bf16DotUse::kWhereFast);
}

// Ties, subnormals, overflow, infinities and NaN convert as the scalar functions do.
TEST(AppendKv, RoundsToNearestEven) {
  for_each_target([&] {
    const float values[] = {1.00390625F,
                            1.01171875F,
                            -1.00390625F,
                            3.3e38F,
                            -3.4e38F,
                            1e-40F,
                            65519.0F,
                            65520.0F,
                            6e-8F,
                            2.9e-8F,
                            kInfinity,
                            -kInfinity,
                            0.0F,
                            -0.0F,
                            NAN,
                            1.0004883F,
                            1.0014648F,
                            -1e30F};
    const int64_t head_dim = 64;
    TestTensor k(DType::kF32, {1, 1, head_dim});
    for (int64_t i = 0; i < head_dim; ++i)
      k.set(i, values[static_cast<size_t>(i) % std::size(values)]);
    const std::vector<int64_t> slots = {0};
    ThreadPool pool(1);
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      const TestTensor k_cache(dtype, {1, 1, 1, head_dim});
      const TestTensor v_cache(dtype, {1, 1, 1, head_dim});
      ASSERT_TRUE(
          append_kv({k.view(), k.view(), k_cache.view(), v_cache.view(), slots}, StreamView(pool))
              .ok());
      TestTensor expected(dtype, {1, 1, 1, head_dim});
      for (int64_t i = 0; i < head_dim; ++i) {
        expected.set(i, k.at(i));
        if (std::isnan(k.at(i))) {
          ASSERT_TRUE(std::isnan(k_cache.at(i)));
        } else {
          ASSERT_EQ(k_cache.at(i), expected.at(i)) << k.at(i);
          ASSERT_EQ(std::signbit(k_cache.at(i)), std::signbit(expected.at(i))) << k.at(i);
        }
      }
    }
  });
}

TEST(AppendKv, RefusesWhatDoesNotFit) {
  Fixture fixture({.num_heads = 2, .num_kv_heads = 2}, {{20, 3}}, 13);
  const TestTensor before = fixture.k_cache_;
  ThreadPool pool(1);
  const std::vector<int64_t> slots = slots_of(fixture.batch(), 16);
  const AppendKvArgs good = {fixture.q_.view(),
                             fixture.q_.view(),
                             fixture.k_cache_.view(),
                             fixture.v_cache_.view(),
                             slots};
  std::vector<AppendKvArgs> bad(6, good);
  bad[0].v = good.v.rows(0, 2);
  bad[1].k = good.k.columns(0, 1);
  bad[2].v.dtype = DType::kI32;
  const std::vector<int64_t> beyond = {slots[0], slots[1], fixture.k_cache_.view().shape[0] * 16};
  const std::vector<int64_t> negative = {slots[0], -1, slots[2]};
  bad[3].slot_mapping = beyond;
  bad[4].slot_mapping = negative;
  bad[5].slot_mapping = std::span(slots).first(2);
  for (const AppendKvArgs& args : bad) {
    EXPECT_EQ(append_kv(args, StreamView(pool)).code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(fixture.k_cache_, before);
  }
}

}  // namespace
}  // namespace lamina::kernels
