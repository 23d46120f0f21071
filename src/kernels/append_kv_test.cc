#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/attention.h"
#include "kernels/attention_fixture.h"

namespace lamina::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

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
  if (cpu::uses_bf16_dot() || cpu::uses_amx()) {
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
