// Attention over more keys than a segment, which threads may share: the reference's results, and
// the same bits whoever computes what.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/attention.h"
#include "kernels/attention_fixture.h"
#include "kernels/cpu/attention_tasks.h"

namespace lamina::kernels {
namespace {

constexpr int64_t kSegment = cpu::kSegmentKeys;
constexpr int64_t kNumHeads = 4;
constexpr int64_t kHeadDim = 32;

struct Variant {
  const char* name;
  std::optional<int32_t> window = std::nullopt;
  bool has_sinks = false;
  bool has_holes = false;
  int64_t latent_dim = 0;  // of values that lie in the keys; 0: values of their own
};
const Variant kVariants[] = {
    {.name = "plain"},
    {.name = "sinks", .has_sinks = true},
    {.name = "sinks and a wide window", .window = kSegment + 100, .has_sinks = true},
    {.name = "sinks and a narrow window", .window = 70, .has_sinks = true},
    {.name = "holes", .has_holes = true},
    {.name = "latent", .latent_dim = 24},
};

// Around the end of a segment; queries on both sides of it; several segments.
const std::vector<SequenceSpec> kSequences = {{kSegment - 1, 1},
                                              {kSegment, 1},
                                              {kSegment + 1, 1},
                                              {kSegment + 70, 2},
                                              {kSegment + 20, 50},
                                              {2 * kSegment, 30},
                                              {3 * kSegment + 130, 2}};

struct Result {
  TestTensor out;
  TestTensor lse;
  bool operator==(const Result&) const = default;
};

class Calls {
 public:
  Calls(const Dimensions& dimensions, const Variant& variant)
      : fixture_(dimensions, kSequences, 7), variant_(variant) {
    if (variant.has_sinks) sinks_ = {0.5F, -1.0F, 2.0F, 3.0F};
    for (size_t i = 1; variant.has_holes && i < fixture_.tables_.size(); i += 3) {
      fixture_.tables_[i] = kNoBlock;
    }
  }

  // The call over all, or, by `change`, over something else.
  template <typename Change>
  [[nodiscard]] RaggedAttentionArgs args(const Result& to, const Change& change) const {
    RaggedAttentionArgs args = fixture_.args(to.out, to.lse);
    args.window = variant_.window;
    args.sinks = sinks_;
    if (variant_.latent_dim > 0) args.v_cache = args.v_scales = TensorView();
    change(args);
    return args;
  }
  [[nodiscard]] Result make_result(int64_t num_queries) const {
    Result result{{DType::kF32, {num_queries, kNumHeads, value_dim()}},
                  {DType::kF32, {num_queries, kNumHeads}}};
    result.out.poison();
    return result;
  }
  [[nodiscard]] Result whole(int num_threads) const {
    return part(0, static_cast<int64_t>(kSequences.size()), {}, num_threads);
  }
  // Sequences [begin, end), or of one of them queries [first, first + count) alone.
  struct Queries {
    int64_t first = 0;
    int64_t count = 0;  // 0: all
  };
  [[nodiscard]] Result part(int64_t begin, int64_t end, Queries queries, int num_threads) const {
    std::vector<int32_t> bounds = {0};
    std::vector<int32_t> contexts;
    for (int64_t b = begin; b < end; ++b) {
      const SequenceSpec& spec = kSequences[static_cast<size_t>(b)];
      const int64_t count = queries.count > 0 ? queries.count : spec.num_queries;
      bounds.push_back(bounds.back() + static_cast<int32_t>(count));
      const int64_t context = spec.context - spec.num_queries + queries.first + count;
      contexts.push_back(static_cast<int32_t>(context));
    }
    const Result result = make_result(bounds.back());
    const RaggedAttentionArgs changed = args(result, [&](RaggedAttentionArgs& call) {
      const auto width = static_cast<size_t>(fixture_.max_blocks_);
      const auto first = static_cast<size_t>(begin);
      call.q = call.q.rows(fixture_.query_begin_[first] + queries.first, bounds.back());
      call.batch.query_begin = bounds;
      call.batch.context_len = contexts;
      call.batch.block_tables = call.batch.block_tables.subspan(first * width);
      call.batch.block_tables =
          call.batch.block_tables.first(static_cast<size_t>(end - begin) * width);
    });
    ThreadPool pool(num_threads);
    EXPECT_TRUE(ragged_attention(changed, StreamView(pool)).ok());
    return result;
  }
  [[nodiscard]] Result in_two_phases(int cached_threads, int rest_threads) const {
    Result result = make_result(num_queries());
    TestTensor state(DType::kF32, {num_queries(), kNumHeads, attention_state_dim(value_dim())});
    state.poison();
    RaggedAttentionArgs call = args(result, [&](RaggedAttentionArgs& cached) {
      cached.phase = AttentionPhase::kCached;
      cached.state = state.view();
      cached.out = cached.lse = TensorView();
    });
    ThreadPool cached_pool(cached_threads);
    EXPECT_TRUE(ragged_attention(call, StreamView(cached_pool)).ok());
    call.phase = AttentionPhase::kRest;
    call.out = result.out.view();
    call.lse = result.lse.view();
    ThreadPool rest_pool(rest_threads);
    EXPECT_TRUE(ragged_attention(call, StreamView(rest_pool)).ok());
    return result;
  }
  [[nodiscard]] Result by_reference() const {
    Result result = make_result(num_queries());
    ref::ragged_attention(args(result, [](const RaggedAttentionArgs&) {}));
    return result;
  }
  // Of a result over all, the rows of what part() computed, query `first` of sequence b being the
  // first.
  void expect_rows(const Result& all, int64_t b, int64_t first, const Result& rows) const {
    const int64_t begin = fixture_.query_begin_[static_cast<size_t>(b)] + first;
    const TensorView out = all.out.view().rows(begin, rows.out.view().shape[0]);
    EXPECT_EQ(0, std::memcmp(rows.out.view().data, out.data, out.size_bytes()))
        << variant_.name << " sequence " << b << " query " << first;
  }

 private:
  [[nodiscard]] int64_t num_queries() const { return fixture_.query_begin_.back(); }
  [[nodiscard]] int64_t value_dim() const {
    return variant_.latent_dim > 0 ? variant_.latent_dim : kHeadDim;
  }

  Fixture fixture_;
  Variant variant_;
  std::vector<float> sinks_;
};

void expect_same_bits(const Calls& calls, const Result& whole) {
  EXPECT_TRUE(calls.whole(2) == whole);
  EXPECT_TRUE(calls.whole(5) == whole);
  EXPECT_TRUE(calls.in_two_phases(1, 3) == whole);
  EXPECT_TRUE(calls.in_two_phases(5, 1) == whole);
  for (size_t b = 0; b < kSequences.size(); ++b) {
    const auto idx = static_cast<int64_t>(b);
    const int64_t num_queries = kSequences[b].num_queries;
    calls.expect_rows(whole, idx, 0, calls.part(idx, idx + 1, {}, 3));
    // As if decoded; and in the chunks of another step.
    for (const int64_t query : {int64_t{0}, num_queries * 3 / 5, num_queries - 1}) {
      calls.expect_rows(whole, idx, query, calls.part(idx, idx + 1, {query, 1}, 3));
    }
    const int64_t half = num_queries / 2;
    if (half == 0) continue;
    calls.expect_rows(whole, idx, 0, calls.part(idx, idx + 1, {0, half}, 2));
    calls.expect_rows(whole, idx, half, calls.part(idx, idx + 1, {half, num_queries - half}, 2));
  }
}

// Dtypes of queries and cache: a test of each, so that none takes long under a sanitizer.
class AttentionSegments : public testing::TestWithParam<std::pair<DType, DType>> {
 protected:
  template <typename Check>
  void for_each_call(const Check& check) const {
    const auto [q_dtype, kv_dtype] = GetParam();
    for (const Variant& variant : kVariants) {
      SCOPED_TRACE(variant.name);
      const Dimensions rows = {
          .num_heads = kNumHeads, .head_dim = kHeadDim, .q_dtype = q_dtype, .kv_dtype = kv_dtype};
      const Result expected = Calls(rows, variant).by_reference();
      for_each_target([&, q = q_dtype, kv = kv_dtype] {
        const auto check_in_order = [&](const Dimensions& dimensions) {
          check(Calls(dimensions, variant), expected, attention_magnitude(q, kv, 1.0F));
        };
        if (variant.latent_dim > 0) return check_in_order(rows);
        for_each_order(rows, check_in_order);
      });
    }
  }
};

TEST_P(AttentionSegments, AgreeWithReferenceWithTheSameBitsHoweverShared) {
  for_each_call([](const Calls& calls, const Result& expected, float magnitude) {
    const Result whole = calls.whole(1);
    expect_near(whole.out, expected.out, magnitude, "out");
    expect_near(whole.lse, expected.lse, 4.0F, "lse");
    expect_same_bits(calls, whole);
  });
}

INSTANTIATE_TEST_SUITE_P(DTypes,
                         AttentionSegments,
                         testing::Values(std::pair{DType::kF32, DType::kF32},
                                         std::pair{DType::kF32, DType::kI8},
                                         std::pair{DType::kBF16, DType::kBF16},
                                         std::pair{DType::kBF16, DType::kI8},
                                         std::pair{DType::kBF16, DType::kF8E4M3}),
                         name_of_dtypes);

// More segments than are in memory at once, beside sequences that nobody splits.
TEST(AttentionSegments, LongSequencesTakeTurns) {
  std::vector<SequenceSpec> specs(6, {7 * kSegment + 9, 1});
  specs.insert(specs.begin() + 2, 5, {33, 1});
  const Fixture fixture({.num_heads = 2, .num_kv_heads = 1, .head_dim = 8}, specs, 3);
  const auto attend = [&fixture](int num_threads) {
    Result result{fixture.make_out(DType::kF32), fixture.make_lse()};
    ThreadPool pool(num_threads);
    EXPECT_TRUE(ragged_attention(fixture.args(result.out, result.lse), StreamView(pool)).ok());
    return result;
  };
  EXPECT_TRUE(attend(2) == attend(1));
}

}  // namespace
}  // namespace lamina::kernels
