#include <gtest/gtest.h>

#include <limits>

#include "kernels/attention.h"
#include "kernels/ref/attention.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Partial {
  TestTensor out;
  TestTensor lse;

  [[nodiscard]] AttentionPartial view() const { return {out.view(), lse.view()}; }
};

Partial random_partial(uint64_t seed) {
  Rng rng(seed);
  return {TestTensor::random(DType::kF32, {40, 3, 24}, rng),
          TestTensor::random(DType::kF32, {40, 3}, rng, 20.0F)};
}

Partial empty_partial() {
  Partial partial = {TestTensor(DType::kF32, {40, 3, 24}), TestTensor(DType::kF32, {40, 3})};
  for (int64_t i = 0; i < partial.lse.size(); ++i) partial.lse.set(i, -kInfinity);
  return partial;
}

Partial merged(Partial into, const Partial& from) {
  ThreadPool pool(2);
  EXPECT_TRUE(merge_partials(into.view(), from.view(), StreamView(pool)).ok());
  return into;
}

void expect_same(const Partial& a, const Partial& b, const std::string& what) {
  expect_near(a.out, b.out, 1.0F, what);
  expect_near(a.lse, b.lse, 1.0F, what);
}

TEST(MergePartials, AgreesWithReference) {
  const Partial from = random_partial(2);
  const Partial expected = random_partial(1);
  ref::merge_partials(expected.view(), from.view());
  expect_same(merged(random_partial(1), from), expected, "merge");
}

TEST(MergePartials, IsAssociativeAndCommutative) {
  const Partial a = random_partial(1);
  const Partial b = random_partial(2);
  const Partial c = random_partial(3);
  expect_same(merged(merged(a, b), c), merged(a, merged(b, c)), "associative");
  expect_same(merged(a, b), merged(b, a), "commutative");
}

TEST(MergePartials, EmptyIsTheIdentityToTheBit) {
  const Partial a = random_partial(1);
  for (const Partial& result : {merged(a, empty_partial()), merged(empty_partial(), a)}) {
    EXPECT_EQ(result.out, a.out);
    EXPECT_EQ(result.lse, a.lse);
  }
  const Partial nothing = merged(empty_partial(), empty_partial());
  EXPECT_EQ(nothing.out, empty_partial().out);
  EXPECT_EQ(nothing.lse, empty_partial().lse);
}

// The partials of two halves of the keys make the attention over all.
TEST(MergePartials, JoinsHalvesOfTheKeys) {
  Rng rng(4);
  const int64_t length = 100;
  const TestTensor keys = TestTensor::random(DType::kF32, {1, 1, length, 16}, rng);
  const TestTensor values = TestTensor::random(DType::kF32, {1, 1, length, 16}, rng);
  const TestTensor q = TestTensor::random(DType::kF32, {1, 2, 16}, rng);
  ThreadPool pool(1);
  // Keys [begin, end) as a cache of one block.
  const auto attend = [&](int64_t begin, int64_t end) {
    Partial partial = {TestTensor(DType::kF32, {1, 2, 16}), TestTensor(DType::kF32, {1, 2})};
    const auto part = [&](const TestTensor& all) {
      return TensorView(all.view().as<float>() + begin * 16, DType::kF32, {1, 1, end - begin, 16});
    };
    const std::vector<int32_t> bounds = {0, 1};
    const std::vector<int32_t> context = {static_cast<int32_t>(end - begin)};
    const std::vector<int32_t> table = {0};
    EXPECT_TRUE(ragged_attention({q.view(),
                                  part(keys),
                                  part(values),
                                  partial.out.view(),
                                  partial.lse.view(),
                                  {bounds, context, table, 1},
                                  0.25F,
                                  std::nullopt},
                                 StreamView(pool))
                    .ok());
    return partial;
  };
  for (const int64_t cut : {1, 37, 99}) {
    expect_same(merged(attend(0, cut), attend(cut, length)), attend(0, length), "halves");
  }
}

TEST(MergePartials, RefusesWhatDoesNotFit) {
  const Partial a = random_partial(1);
  const Partial b = random_partial(2);
  ThreadPool pool(1);
  AttentionPartial bad = b.view();
  bad.out = bad.out.rows(0, 39);
  EXPECT_EQ(merge_partials(a.view(), bad, StreamView(pool)).code(), StatusCode::kInvalidArgument);
  bad = b.view();
  bad.lse = TensorView();
  EXPECT_EQ(merge_partials(a.view(), bad, StreamView(pool)).code(), StatusCode::kInvalidArgument);
  bad = a.view();
  bad.out.dtype = DType::kBF16;
  EXPECT_EQ(merge_partials(bad, b.view(), StreamView(pool)).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lamina::kernels
