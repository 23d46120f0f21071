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

// As the reference quantises, in both orders, bit for bit; and as it would alone.
TEST(AppendKv, QuantisesAsTheReferenceDoes) {
  for_each_target([&] {
    for (const DType dtype : kFloatDTypes) {
      for (const DType kv_dtype : kCodeDTypes) {
        for (const float largest : {3.0F, 1e-30F, 3e4F}) {
          Dimensions dimensions{.num_heads = 3,
                                .num_kv_heads = 3,
                                .head_dim = 32,
                                .q_dtype = dtype,
                                .kv_dtype = kv_dtype};
          for (const KvOrder order :
               {KvOrder::kRows,
                preferred_order({kv_dtype, DType::kBF16, dimensions.block_size, 32, 32})}) {
            dimensions.order = order;
            const Fixture expected(dimensions, odd_batch(16), 11);
            const Fixture actual(dimensions, odd_batch(16), 11);
            Rng rng(12);
            const TestTensor k = TestTensor::random(dtype, expected.q_.view().shape, rng, largest);
            const TestTensor v = TestTensor::random(dtype, expected.q_.view().shape, rng);
            const std::vector<int64_t> slots = slots_of(expected.batch(), 16);
            const auto args = [&](const Fixture& to) {
              return AppendKvArgs{k.view(),
                                  v.view(),
                                  to.k_cache_.view(),
                                  to.v_cache_.view(),
                                  slots,
                                  order,
                                  to.k_scales_.view(),
                                  to.v_scales_.view()};
            };
            ref::append_kv(args(expected));
            ThreadPool pool(2);
            for (int replay = 0; replay < 2; ++replay) {
              ASSERT_TRUE(append_kv(args(actual), StreamView(pool)).ok());
              ASSERT_EQ(actual.k_cache_, expected.k_cache_) << dtype_name(kv_dtype);
              ASSERT_EQ(actual.v_cache_, expected.v_cache_);
              ASSERT_EQ(actual.k_scales_, expected.k_scales_);
              ASSERT_EQ(actual.v_scales_, expected.v_scales_);
            }
          }
        }
      }
    }
  });
}

// What a key comes back as: within half a step of the codes.
TEST(AppendKv, CodesTimesScalesAreTheRow) {
  for_each_target([&] {
    constexpr int64_t kDim = 80;
    Rng rng(3);
    const TestTensor k = TestTensor::random(DType::kF32, {1, 1, kDim}, rng, 5.0F);
    float largest = 0.0F;
    for (int64_t i = 0; i < kDim; ++i) largest = std::max(largest, std::fabs(k.at(i)));
    const std::vector<int64_t> slots = {0};
    ThreadPool pool(1);
    for (const DType dtype : kCodeDTypes) {
      const TestTensor cache(dtype, {1, 1, 1, kDim});
      const TestTensor scale(DType::kF32, {1, 1, 1});
      AppendKvArgs args{k.view(), TensorView(), cache.view(), TensorView(), slots};
      args.k_scales = scale.view();
      ASSERT_TRUE(append_kv(args, StreamView(pool)).ok());  // latent: keys alone
      for (int64_t i = 0; i < kDim; ++i) {
        const float error = std::fabs(cache.at(i) * scale.at(0) - k.at(i));
        const float step = dtype == DType::kI8 ? largest / 254 : std::fabs(k.at(i)) / 16;
        ASSERT_LE(error, step + largest * 2e-5F) << dtype_name(dtype) << " " << k.at(i);
      }
    }
  });
}

// Zeros stay zeros; a row with a NaN or an infinity comes back as NaN, and no other does.
TEST(AppendKv, QuantisesRowsThatAreNoNumbers) {
  for_each_target([&] {
    TestTensor k(DType::kF32, {4, 1, 20});
    for (int64_t i = 0; i < 20; ++i) k.set(20 + i, 1e-38F);
    k.set(2 * 20 + 7, NAN);
    k.set(3 * 20 + 19, -kInfinity);
    const std::vector<int64_t> slots = {0, 1, 2, 3};
    ThreadPool pool(1);
    for (const DType dtype : kCodeDTypes) {
      const TestTensor cache(dtype, {1, 1, 4, 20});
      const TestTensor scales(DType::kF32, {1, 1, 4});
      AppendKvArgs args{k.view(), TensorView(), cache.view(), TensorView(), slots};
      args.k_scales = scales.view();
      ASSERT_TRUE(append_kv(args, StreamView(pool)).ok());
      for (int64_t i = 0; i < 80; ++i) ASSERT_EQ(cache.at(i), 0.0F);
      EXPECT_EQ(scales.at(0), 0.0F);
      EXPECT_EQ(scales.at(1), 0.0F);
      EXPECT_TRUE(std::isnan(scales.at(2)) && std::isnan(scales.at(3)));
      args.k_scales = TensorView();
      EXPECT_EQ(append_kv(args, StreamView(pool)).code(), StatusCode::kInvalidArgument);
    }
  });
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

// As if the other tokens alone had been given.
TEST(AppendKv, LeavesOutWhatOthersHold) {
  for_each_target([&] {
    for (const DType kv_dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
      Dimensions dimensions{.num_heads = 2,
                            .num_kv_heads = 2,
                            .head_dim = 32,
                            .q_dtype = DType::kBF16,
                            .kv_dtype = kv_dtype};
      dimensions.order = preferred_order({kv_dtype, DType::kBF16, dimensions.block_size, 32, 32});
      const Fixture expected(dimensions, {{20, 3}}, 13);
      const Fixture by_reference(dimensions, {{20, 3}}, 13);
      const Fixture actual(dimensions, {{20, 3}}, 13);
      std::vector<int64_t> slots = slots_of(expected.batch(), 16);
      ThreadPool pool(2);
      const auto args = [&](const Fixture& to, int64_t begin, std::span<const int64_t> of_tokens) {
        const auto count = static_cast<int64_t>(of_tokens.size());
        return AppendKvArgs{expected.q_.view().rows(begin, count),
                            expected.q_.view().rows(begin, count),
                            to.k_cache_.view(),
                            to.v_cache_.view(),
                            of_tokens,
                            dimensions.order,
                            to.k_scales_.view(),
                            to.v_scales_.view()};
      };
      for (const int64_t token : {0, 2}) {
        const auto slot = std::span(slots).subspan(static_cast<size_t>(token), 1);
        ASSERT_TRUE(append_kv(args(expected, token, slot), StreamView(pool)).ok());
      }
      slots[1] = kNoSlot;
      ref::append_kv(args(by_reference, 0, slots));
      ASSERT_TRUE(append_kv(args(actual, 0, slots), StreamView(pool)).ok());
      for (const Fixture* each : {&by_reference, &actual}) {
        EXPECT_EQ(each->k_cache_, expected.k_cache_) << dtype_name(kv_dtype);
        EXPECT_EQ(each->v_cache_, expected.v_cache_) << dtype_name(kv_dtype);
        EXPECT_EQ(each->k_scales_, expected.k_scales_) << dtype_name(kv_dtype);
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
  const std::vector<int64_t> negative = {slots[0], -2, slots[2]};
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
