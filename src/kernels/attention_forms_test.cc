// Forms of attention beyond the plain one: soft caps, ALiBi, sinks, values narrower than keys,
// values that lie in the keys.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "base/checked_math.h"
#include "kernels/attention.h"
#include "kernels/ref/attention.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr int64_t kBlockSize = 16;

struct Form {
  std::string name;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 2;
  int64_t key_dim = 24;
  int64_t value_dim = 32;
  bool latent = false;
  std::optional<int32_t> window = std::nullopt;
  std::optional<float> soft_cap = std::nullopt;
  bool alibi = false;
  bool sinks = false;
};

const std::vector<Form> kForms = {
    {.name = "soft cap", .soft_cap = 5.0F},
    {.name = "alibi", .alibi = true},
    {.name = "sinks", .sinks = true},
    {.name = "sinks and window", .window = 20, .sinks = true},
    {.name = "soft cap, window, alibi", .window = 33, .soft_cap = 2.0F, .alibi = true},
    {.name = "narrow values", .value_dim = 13},
    {.name = "wide values", .key_dim = 8, .value_dim = 70},
    {.name = "latent",
     .num_heads = 16,
     .num_kv_heads = 1,
     .key_dim = 40,
     .value_dim = 32,
     .latent = true},
    {.name = "latent of odd widths",
     .num_heads = 3,
     .num_kv_heads = 1,
     .key_dim = 37,
     .value_dim = 21,
     .latent = true},
    {.name = "latent of DeepSeek's size",
     .num_heads = 128,
     .num_kv_heads = 1,
     .key_dim = 576,
     .value_dim = 512,
     .latent = true},
    {.name = "everything",
     .num_heads = 6,
     .num_kv_heads = 3,
     .value_dim = 16,
     .window = 50,
     .soft_cap = 3.0F,
     .alibi = true,
     .sinks = true}};

// The reference computes element by element in f64: large heads get little to do.
std::vector<std::pair<int32_t, int32_t>> contexts_for(const Form& form) {
  if (form.key_dim > 256) return {{40, 2}, {18, 1}};
  return {{1, 1}, {70, 1}, {150, 40}, {64, 64}};
}

// Sequences whose keys and values lie in a paged cache, one after the other.
struct Problem {
  Form form;
  std::vector<int32_t> query_begin = {0};
  std::vector<int32_t> context_len;
  std::vector<int32_t> tables;
  int64_t max_blocks = 12;
  KvOrder order = KvOrder::kRows;
  TestTensor q, k_cache, v_cache, k_scales, v_scales;
  std::vector<float> slopes, sinks;

  Problem(const Form& tested,
          const std::vector<std::pair<int32_t, int32_t>>& contexts_and_queries,
          DType q_dtype,
          DType kv_dtype,
          uint64_t seed = 1)
      : form(tested) {
    Rng rng(seed);
    int32_t next_block = 1;
    for (const auto& [context, num_queries] : contexts_and_queries) {
      context_len.push_back(context);
      query_begin.push_back(query_begin.back() + num_queries);
      for (int64_t i = 0; i < max_blocks; ++i) {
        tables.push_back(i < ceil_div<int64_t>(context, kBlockSize) ? next_block++ : -1);
      }
    }
    const Shape cache = {next_block, form.num_kv_heads, kBlockSize, form.key_dim};
    // Codes of all sizes, and scales that make as much of them as numbers are otherwise.
    const float largest = kv_dtype == DType::kI8 ? 127.0F : is_quantized(kv_dtype) ? 448.0F : 1.0F;
    k_cache = TestTensor::random(kv_dtype, cache, rng, is_quantized(kv_dtype) ? largest : 2.0F);
    if (!form.latent) {
      v_cache = TestTensor::random(kv_dtype, cache.with(3, form.value_dim), rng, largest);
    }
    if (is_quantized(kv_dtype)) {
      k_scales = TestTensor::random(
          DType::kF32, {next_block, form.num_kv_heads, kBlockSize}, rng, 2.0F / largest);
      v_scales = TestTensor::random(
          DType::kF32, {next_block, form.num_kv_heads, kBlockSize}, rng, 1.0F / largest);
    }
    q = TestTensor::random(q_dtype, {query_begin.back(), form.num_heads, form.key_dim}, rng);
    for (int64_t head = 0; head < form.num_heads; ++head) {
      if (form.alibi) slopes.push_back(0.5F / static_cast<float>(head + 1));
      if (form.sinks) sinks.push_back(rng.next_float() * 4.0F - 2.0F);
    }
  }

  [[nodiscard]] RaggedAttentionArgs args(const TestTensor& out, const TestTensor& lse) const {
    return {.q = q.view(),
            .k_cache = k_cache.view(),
            .v_cache = form.latent ? TensorView() : v_cache.view(),
            .out = out.view(),
            .lse = lse.view(),
            .batch = {query_begin, context_len, tables, max_blocks},
            .scale = 1.0F / std::sqrt(static_cast<float>(form.key_dim)),
            .window = form.window,
            .soft_cap = form.soft_cap,
            .alibi_slopes = slopes,
            .sinks = sinks,
            .phase = AttentionPhase::kWhole,
            .state = {},
            .order = order,
            .k_scales = k_scales.view(),
            .v_scales = form.latent ? TensorView() : v_scales.view()};
  }
  // Calls body() with the problem's caches read in each order that they may have: what is in them
  // is random.
  template <typename Body>
  void for_each_order(const Body& body) {
    order = KvOrder::kRows;
    body();
    order = preferred_order({.dtype = k_cache.view().dtype,
                             .q_dtype = q.view().dtype,
                             .block_size = kBlockSize,
                             .key_dim = form.key_dim,
                             .value_dim = form.latent ? 0 : form.value_dim});
    if (order != KvOrder::kRows) body();
    order = KvOrder::kRows;
  }
  [[nodiscard]] TestTensor make_out(DType dtype) const {
    TestTensor out(dtype, {query_begin.back(), form.num_heads, form.value_dim});
    out.poison();
    return out;
  }
  [[nodiscard]] TestTensor make_lse() const {
    return {DType::kF32, {query_begin.back(), form.num_heads}};
  }
};

void expect_agrees(const Problem& problem, DType q_dtype, DType kv_dtype) {
  for (const DType out_dtype : {DType::kF32, q_dtype}) {
    TestTensor out = problem.make_out(out_dtype);
    TestTensor lse = problem.make_lse();
    TestTensor expected = problem.make_out(out_dtype);
    const TestTensor expected_lse = problem.make_lse();
    ThreadPool pool(2);
    ASSERT_TRUE(ragged_attention(problem.args(out, lse), StreamView(pool)).ok());
    ref::ragged_attention(problem.args(expected, expected_lse));
    const std::string what = fmt::format("{} {}", problem.form.name, dtype_name(q_dtype));
    expect_near(out, expected, attention_magnitude(q_dtype, kv_dtype, 4.0F), what);
    expect_near(lse, expected_lse, 8.0F, what + " lse");
  }
}

// Dtypes of queries and cache: a test of each, so that none takes long under a sanitizer.
class AttentionFormsOf : public testing::TestWithParam<std::pair<DType, DType>> {};

TEST_P(AttentionFormsOf, AgreeWithReference) {
  const auto [q_dtype, kv_dtype] = GetParam();
  for_each_target([&, q = q_dtype, kv = kv_dtype] {
    for (const Form& form : kForms) {
      Problem problem(form, contexts_for(form), q, kv);
      problem.for_each_order([&] { expect_agrees(problem, q, kv); });
    }
  });
}

INSTANTIATE_TEST_SUITE_P(DTypes,
                         AttentionFormsOf,
                         testing::Values(std::pair{DType::kF32, DType::kF32},
                                         std::pair{DType::kBF16, DType::kBF16},
                                         std::pair{DType::kF16, DType::kF16},
                                         std::pair{DType::kF32, DType::kBF16},
                                         std::pair{DType::kF32, DType::kI8},
                                         std::pair{DType::kBF16, DType::kI8},
                                         std::pair{DType::kBF16, DType::kF8E4M3}),
                         name_of_dtypes);

// Caches that bf16 queries meet.
constexpr DType kCachesOfBF16[] = {DType::kBF16, DType::kI8, DType::kF8E4M3};

class AttentionFormsOver : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes,
                         AttentionFormsOver,
                         testing::ValuesIn(kCachesOfBF16),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

template <typename Body>
void for_each_form_and_cache(const Body& body) {
  for (const Form& form : kForms) {
    for (const DType kv_dtype : kCachesOfBF16) body(form, kv_dtype);
  }
}

// Decode, prefill in any chunking and any batch give the same bits.
TEST(AttentionForms, AQueryDoesNotSeeItsBatch) {
  for_each_target([&] {
    for_each_form_and_cache([&](const Form& form, DType kv_dtype) {
      if (form.key_dim > 256) return;
      Problem all(form, {{90, 30}, {150, 41}}, DType::kBF16, kv_dtype);
      all.for_each_order([&] {
        TestTensor out = all.make_out(DType::kBF16);
        ThreadPool pool(3);
        ASSERT_TRUE(ragged_attention(all.args(out, all.make_lse()), StreamView(pool)).ok());
        for (const int32_t query : {0, 7, 29}) {
          Problem one(form, {{90, 30}, {150, 41}}, DType::kBF16, kv_dtype);
          one.order = all.order;
          one.query_begin = {0, 1};
          one.context_len = {90 - 29 + query};
          one.tables.resize(static_cast<size_t>(one.max_blocks));
          TestTensor row = one.make_out(DType::kBF16);
          const TestTensor row_lse = one.make_lse();
          RaggedAttentionArgs args = one.args(row, row_lse);
          args.q = args.q.rows(query, 1);
          ThreadPool single(1);
          ASSERT_TRUE(ragged_attention(args, StreamView(single)).ok());
          for (int64_t i = 0; i < row.size(); ++i) {
            ASSERT_EQ(row.at(i), out.at(query * row.size() + i)) << form.name << " query " << query;
          }
        }
      });
    });
  });
}

// A batch whose blocks are dealt out to several workers, in runs and at random, the sinks given to
// one of them, merges to what it is in one piece.
void expect_parts_merge(const Problem& whole, uint64_t seed) {
  ThreadPool pool(1);
  const StreamView stream(pool);
  const TestTensor out = whole.make_out(DType::kF32);
  const TestTensor lse = whole.make_lse();
  ASSERT_TRUE(ragged_attention(whole.args(out, lse), stream).ok());
  constexpr int kNumParts = 3;
  std::vector<Problem> parts(kNumParts, whole);
  Rng rng(seed);
  for (size_t i = 0; i < whole.tables.size(); ++i) {
    const uint64_t owner = seed == 1 ? i / 4 % kNumParts : rng.next_below(kNumParts);
    for (uint64_t p = 0; p < kNumParts; ++p) {
      if (p != owner) parts[p].tables[i] = kNoBlock;
    }
  }
  TestTensor merged = whole.make_out(DType::kF32);
  TestTensor merged_lse = whole.make_lse();
  for (size_t p = 0; p < kNumParts; ++p) {
    if (p != seed % kNumParts) parts[p].sinks.clear();
    const TestTensor part_out = whole.make_out(DType::kF32);
    const TestTensor part_lse = whole.make_lse();
    const RaggedAttentionArgs args =
        parts[p].args(p == 0 ? merged : part_out, p == 0 ? merged_lse : part_lse);
    ASSERT_TRUE(ragged_attention(args, stream).ok());
    if (p == 0) continue;
    ASSERT_TRUE(merge_partials(
                    {merged.view(), merged_lse.view()}, {part_out.view(), part_lse.view()}, stream)
                    .ok());
  }
  expect_near(merged, out, 4.0F, fmt::format("{} seed {}", whole.form.name, seed));
  expect_near(merged_lse, lse, 8.0F, whole.form.name);
}

// As near to the whole in bf16 as in f32: no rounding depends on who met a key.
TEST(AttentionForms, SplitSequencesMergeToTheWhole) {
  for_each_target([&] {
    for (const Form& form : kForms) {
      for (uint64_t seed = 1; seed <= 3; ++seed) {
        for (const auto& [q_dtype, kv_dtype] : {std::pair{DType::kF32, DType::kF32},
                                                {DType::kBF16, DType::kBF16},
                                                {DType::kBF16, DType::kI8},
                                                {DType::kBF16, DType::kF8E4M3}}) {
          Problem whole(form, contexts_for(form), q_dtype, kv_dtype, seed);
          whole.for_each_order([&] { expect_parts_merge(whole, seed); });
        }
      }
    }
  });
}

TEST_P(AttentionFormsOver, AgreeWithReferenceWhereBlocksAreMissing) {
  const DType kv_dtype = GetParam();
  for_each_target([&] {
    for (const Form& form : kForms) {
      for (const DType q_dtype : {DType::kF32, DType::kBF16}) {
        Problem problem(form, contexts_for(form), q_dtype, kv_dtype);
        for (size_t i = 0; i < problem.tables.size(); i += 3) problem.tables[i] = kNoBlock;
        problem.for_each_order([&, q = q_dtype] { expect_agrees(problem, q, kv_dtype); });
      }
    }
  });
}

// Before this step's keys are there, and after: the bits of one call.
TEST_P(AttentionFormsOver, PhasesGiveTheBitsOfTheWhole) {
  const DType kv_dtype = GetParam();
  for_each_target([&] {
    for (const Form& form : kForms) {
      for (const bool has_holes : {false, true}) {
        Problem problem(form,
                        {{1, 1}, {64, 1}, {65, 1}, {128, 64}, {190, 3}, {150, 100}},
                        DType::kBF16,
                        kv_dtype);
        for (size_t i = 1; has_holes && i < problem.tables.size(); i += 3) {
          problem.tables[i] = kNoBlock;
        }
        problem.for_each_order([&] {
          const TestTensor expected = problem.make_out(DType::kF32);
          const TestTensor expected_lse = problem.make_lse();
          const TestTensor out = problem.make_out(DType::kF32);
          const TestTensor lse = problem.make_lse();
          const Shape rows = expected.view().shape;
          TestTensor state(DType::kF32, rows.with(2, attention_state_dim(rows[2])));
          state.poison();
          ThreadPool pool(2);
          RaggedAttentionArgs args = problem.args(expected, expected_lse);
          ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
          args.state = state.view();
          args.out = args.lse = TensorView();
          args.phase = AttentionPhase::kCached;
          ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
          args.out = out.view();
          args.lse = lse.view();
          args.phase = AttentionPhase::kRest;
          ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
          ASSERT_EQ(out, expected) << form.name;
          ASSERT_EQ(lse, expected_lse) << form.name;
        });
      }
    }
  });
}

// The first phase reads no block that holds a token of this step.
TEST(AttentionForms, TheCachedPhaseDoesNotReadNewKeys) {
  Problem problem({.name = "plain"}, {{140, 10}}, DType::kF32, DType::kF32);
  const TestTensor state(DType::kF32, {10, 4, attention_state_dim(32)});
  const TestTensor expected(DType::kF32, {10, 4, attention_state_dim(32)});
  ThreadPool pool(1);
  RaggedAttentionArgs args = problem.args(TestTensor(), TestTensor());
  args.phase = AttentionPhase::kCached;
  args.state = expected.view();
  ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
  for (size_t i = 130 / 16; i < 9; ++i) problem.tables[i] = kNoBlock;
  args.batch.block_tables = problem.tables;
  args.state = state.view();
  ASSERT_TRUE(ragged_attention(args, StreamView(pool)).ok());
  EXPECT_EQ(state, expected);
  EXPECT_NE(state.at(attention_state_dim(32) / 2), 0.0F);
}

TEST(AttentionForms, ASinkAloneIsAPartialWithoutValue) {
  const Form form{.name = "nothing but a sink", .window = 0, .sinks = true};
  const Problem problem(form, {{20, 3}}, DType::kF32, DType::kF32);
  TestTensor out = problem.make_out(DType::kF32);
  TestTensor lse = problem.make_lse();
  ThreadPool pool(1);
  ASSERT_TRUE(ragged_attention(problem.args(out, lse), StreamView(pool)).ok());
  for (int64_t i = 0; i < out.size(); ++i) EXPECT_EQ(out.at(i), 0.0F);
  for (int64_t i = 0; i < lse.size(); ++i) {
    EXPECT_EQ(lse.at(i), problem.sinks[static_cast<size_t>(i % form.num_heads)]);
  }
}

TEST(AttentionForms, AppendsKeysAndNarrowValues) {
  for (const bool latent : {false, true}) {
    const Form form{.name = "append", .key_dim = 24, .value_dim = 10, .latent = latent};
    Problem problem(form, {{20, 5}}, DType::kF32, DType::kF32);
    Rng rng(2);
    const TestTensor k = TestTensor::random(DType::kBF16, {5, 2, 24}, rng);
    const TestTensor v = TestTensor::random(DType::kBF16, {5, 2, 10}, rng);
    TestTensor expected_keys = problem.k_cache;
    TestTensor expected_values = problem.v_cache;
    const std::vector<int64_t> slots = slots_of(
        {problem.query_begin, problem.context_len, problem.tables, problem.max_blocks}, kBlockSize);
    const auto args = [&](const TestTensor& keys, const TestTensor& values) {
      return AppendKvArgs{k.view(),
                          latent ? TensorView() : v.view(),
                          keys.view(),
                          latent ? TensorView() : values.view(),
                          slots};
    };
    ThreadPool pool(1);
    ASSERT_TRUE(append_kv(args(problem.k_cache, problem.v_cache), StreamView(pool)).ok());
    ref::append_kv(args(expected_keys, expected_values));
    EXPECT_EQ(problem.k_cache, expected_keys);
    EXPECT_EQ(problem.v_cache, expected_values);
  }
}

TEST(AttentionForms, RefuseWhatDoesNotFit) {
  const Problem problem({.name = "plain"}, {{20, 3}}, DType::kF32, DType::kF32);
  const TestTensor out = problem.make_out(DType::kF32);
  const TestTensor lse = problem.make_lse();
  const std::vector<float> three = {1.0F, 1.0F, 1.0F};
  const std::vector<std::function<void(RaggedAttentionArgs&)>> damages = {
      [](RaggedAttentionArgs& args) { args.soft_cap = 0.0F; },
      [&](RaggedAttentionArgs& args) { args.alibi_slopes = three; },
      [&](RaggedAttentionArgs& args) { args.sinks = three; },
      [](RaggedAttentionArgs& args) { args.out.shape = args.out.shape.with(2, 20); },
      [](RaggedAttentionArgs& args) {
        args.v_cache = TensorView();
        args.out.shape = args.out.shape.with(2, 25);
      }};
  ThreadPool pool(1);
  for (size_t i = 0; i < damages.size(); ++i) {
    RaggedAttentionArgs args = problem.args(out, lse);
    damages[i](args);
    EXPECT_EQ(ragged_attention(args, StreamView(pool)).code(), StatusCode::kInvalidArgument) << i;
  }
}

}  // namespace
}  // namespace lamina::kernels
