#include "kernels/attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>

#include "kernels/attention_fixture.h"

namespace lamina::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

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
        for (const auto& [q_dtype, kv_dtype] : {std::pair{DType::kF32, DType::kF32},
                                                {DType::kBF16, DType::kBF16},
                                                {DType::kBF16, DType::kI8},
                                                {DType::kBF16, DType::kF8E4M3}}) {
          const Dimensions dimensions = {.num_heads = num_heads,
                                         .num_kv_heads = num_kv_heads,
                                         .head_dim = head_dim,
                                         .q_dtype = q_dtype,
                                         .kv_dtype = kv_dtype};
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
        for (const auto& [q_dtype, kv_dtype] : {std::pair{DType::kF32, DType::kF32},
                                                {DType::kBF16, DType::kBF16},
                                                {DType::kBF16, DType::kI8},
                                                {DType::kBF16, DType::kF8E4M3}}) {
          expect_cpu_agrees({.num_heads = 4,
                             .num_kv_heads = 2,
                             .block_size = block_size,
                             .q_dtype = q_dtype,
                             .kv_dtype = kv_dtype},
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
      for (const DType kv_dtype : kCacheDTypes) {
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
      for (const DType kv_dtype : kCacheDTypes) {
        for (const DType q_dtype :
             {DType::kF32, is_quantized(kv_dtype) ? DType::kBF16 : kv_dtype}) {
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

  std::vector<RaggedAttentionArgs> bad(7, good);
  bad[0].q = good.q.columns(0, 3);
  bad[1].v_cache.dtype = DType::kBF16;
  bad[2].out.dtype = DType::kF16;
  bad[3].lse = good.out;
  bad[4].window = -1;
  bad[5].k_cache = good.q;
  bad[6].k_scales = good.k_cache;  // of floats
  for (const RaggedAttentionArgs& args : bad) expect_refused(args, "views");

  const Fixture codes(
      {.num_heads = 4, .num_kv_heads = 2, .kv_dtype = DType::kI8}, {{20, 3}, {5, 1}}, 10);
  std::vector<RaggedAttentionArgs> bad_codes(3, codes.args(out, lse));
  bad_codes[0].k_scales = TensorView();
  bad_codes[1].v_scales.shape = bad_codes[1].v_scales.shape.with(2, 15);
  bad_codes[2].v_cache.dtype = DType::kF8E4M3;
  for (const RaggedAttentionArgs& args : bad_codes) expect_refused(args, "codes");

  // Blocks that left the window may be gone.
  RaggedAttentionArgs windowed = good;
  windowed.batch.block_tables = bad_low;
  windowed.window = 2;
  EXPECT_TRUE(ragged_attention(windowed, StreamView(pool)).ok());
}

}  // namespace
}  // namespace lamina::kernels
