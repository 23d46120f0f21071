#include "kernels/pointwise.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/ref/pointwise.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr int64_t kWidths[] = {1, 7, 8, 16, 31, 64, 100, 577};

TEST(Pointwise, ElementWiseAgreesWithReference) {
  for_each_target([&] {
    ThreadPool pool(2);
    const StreamView stream(pool);
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t width : kWidths) {
        Rng rng(static_cast<uint64_t>(width));
        const TestTensor a = TestTensor::random(dtype, {5, width}, rng, 9.0F);
        const TestTensor b = TestTensor::random(dtype, {5, width}, rng, 9.0F);
        TestTensor out(dtype, {5, width});
        TestTensor expected(dtype, {5, width});
        const std::string what = fmt::format("{} width {}", dtype_name(dtype), width);
        ASSERT_TRUE(add(a.view(), b.view(), out.view(), stream).ok());
        ref::add(a.view(), b.view(), expected.view());
        ASSERT_EQ(out, expected) << "add " << what;
        ASSERT_TRUE(mul(a.view(), b.view(), out.view(), stream).ok());
        ref::mul(a.view(), b.view(), expected.view());
        ASSERT_EQ(out, expected) << "mul " << what;
        ASSERT_TRUE(silu(a.view(), out.view(), stream).ok());
        ref::silu(a.view(), expected.view());
        expect_near(out, expected, 0.0F, "silu " + what);
      }
    }
  });
}

TEST(Pointwise, SiluHoldsAtTheEnds) {
  for_each_target([&] {
    TestTensor x(DType::kF32, {1, 6});
    const float values[] = {-1e30F, -200.0F, -90.0F, 0.0F, 200.0F, NAN};
    for (int64_t i = 0; i < 6; ++i) x.set(i, values[i]);
    ThreadPool pool(1);
    ASSERT_TRUE(silu(x.view(), x.view(), StreamView(pool)).ok());
    for (const int64_t i : {1, 2}) EXPECT_NEAR(x.at(i), 0.0F, 1e-30F);
    EXPECT_LE(x.at(0), 0.0F);
    EXPECT_EQ(x.at(3), 0.0F);
    EXPECT_EQ(x.at(4), 200.0F);
    EXPECT_TRUE(std::isnan(x.at(5)));
  });
}

TEST(Pointwise, RmsNormAgreesWithReference) {
  for_each_target([&] {
    ThreadPool pool(2);
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t width : kWidths) {
        for (const Shape& shape : {Shape{5, width}, Shape{3, 4, width}}) {
          Rng rng(static_cast<uint64_t>(width));
          const TestTensor x = TestTensor::random(dtype, shape, rng, 3.0F);
          const TestTensor weight = TestTensor::random(dtype, {width}, rng, 2.0F);
          TestTensor out(dtype, shape);
          const TestTensor expected(dtype, shape);
          ASSERT_TRUE(rms_norm(x.view(), weight.view(), 1e-5F, out.view(), StreamView(pool)).ok());
          ref::rms_norm(x.view(), weight.view(), 1e-5F, expected.view());
          expect_near(out, expected, 0.0F, fmt::format("{} width {}", dtype_name(dtype), width));

          TestTensor in_place = x;
          ASSERT_TRUE(
              rms_norm(in_place.view(), weight.view(), 1e-5F, in_place.view(), StreamView(pool))
                  .ok());
          ASSERT_EQ(in_place, out);
        }
      }
    }
  });
}

TEST(Pointwise, RopeAgreesWithReference) {
  for_each_target([&] {
    ThreadPool pool(2);
    const StreamView stream(pool);
    const TestTensor positions = TestTensor::of_i32({0, 1, 17, 100000});
    for (const DType dtype : kFloatDTypes) {
      for (const auto& [head_dim, rotated] :
           {std::pair{8, 8}, {64, 64}, {80, 80}, {80, 20}, {6, 2}}) {
        std::vector<float> inv_freq;
        inv_freq.reserve(static_cast<size_t>(rotated) / 2);
        for (int i = 0; i < rotated / 2; ++i) {
          inv_freq.push_back(
              std::pow(10000.0F, -2.0F * static_cast<float>(i) / static_cast<float>(rotated)));
        }
        const TestTensor table(DType::kF32, {4, rotated});
        const TestTensor expected_table(DType::kF32, {4, rotated});
        ASSERT_TRUE(rope_table(positions.view(), inv_freq, 1.25F, table.view(), stream).ok());
        ref::rope_table(positions.view(), inv_freq, 1.25F, expected_table.view());
        expect_near(table, expected_table, 1.25F, "table");

        Rng rng(5);
        const TestTensor x = TestTensor::random(dtype, {4, 3, head_dim}, rng);
        TestTensor out(dtype, {4, 3, head_dim});
        const TestTensor expected(dtype, {4, 3, head_dim});
        ASSERT_TRUE(rope(x.view(), table.view(), out.view(), stream).ok());
        ref::rope(x.view(), table.view(), expected.view());
        expect_near(out, expected, 2.5F, fmt::format("{} {}", dtype_name(dtype), head_dim));
        TestTensor in_place = x;
        ASSERT_TRUE(rope(in_place.view(), table.view(), in_place.view(), stream).ok());
        ASSERT_EQ(in_place, out);
      }
    }
  });
}

TEST(Pointwise, GathersRows) {
  ThreadPool pool(2);
  const StreamView stream(pool);
  const TestTensor ids = TestTensor::of_i32({4, 0, 4, 2});
  for (const DType dtype : kFloatDTypes) {
    Rng rng(6);
    const TestTensor table = TestTensor::random(dtype, {5, 33}, rng);
    TestTensor out(dtype, {4, 33});
    const TestTensor expected(dtype, {4, 33});
    ref::gather_rows(table.view(), ids.view(), expected.view());
    ASSERT_TRUE(embedding(table.view(), ids.view(), out.view(), stream).ok());
    ASSERT_EQ(out, expected);
    out.poison();
    ASSERT_TRUE(gather_rows(table.view(), ids.view(), out.view(), stream).ok());
    ASSERT_EQ(out, expected);
  }
}

TEST(Pointwise, TakesColumnsOfAWiderTensor) {
  Rng rng(7);
  const TestTensor wide = TestTensor::random(DType::kF32, {3, 48}, rng);
  const TestTensor gate(DType::kF32, {3, 20});
  const TestTensor expected(DType::kF32, {3, 20});
  ThreadPool pool(1);
  ASSERT_TRUE(
      mul(wide.view().columns(0, 20), wide.view().columns(20, 20), gate.view(), StreamView(pool))
          .ok());
  ref::mul(wide.view().columns(0, 20), wide.view().columns(20, 20), expected.view());
  EXPECT_EQ(gate, expected);
}

TEST(Pointwise, RefusesWhatDoesNotFit) {
  ThreadPool pool(1);
  const StreamView stream(pool);
  const TestTensor a(DType::kF32, {3, 8});
  const TestTensor b(DType::kBF16, {3, 8});
  const TestTensor narrow(DType::kF32, {3, 7});
  const TestTensor weight(DType::kF32, {8});
  const TestTensor heads(DType::kF32, {3, 2, 8});
  const TestTensor odd_table(DType::kF32, {3, 7});
  const TestTensor wide_table(DType::kF32, {3, 10});
  const TestTensor ids = TestTensor::of_i32({0, 1, 3});
  const TestTensor negative = TestTensor::of_i32({0, -1, 2});
  const std::vector<float> frequencies = {1.0F, 0.5F};
  const std::vector<std::function<Status()>> calls = {
      [&] { return add(a.view(), b.view(), a.view(), stream); },
      [&] { return add(a.view(), narrow.view(), a.view(), stream); },
      [&] { return mul(a.view(), a.view(), b.view(), stream); },
      [&] { return mul({}, a.view(), a.view(), stream); },
      [&] { return silu(a.view(), narrow.view(), stream); },
      [&] { return silu(ids.view(), ids.view(), stream); },
      [&] { return rms_norm(a.view(), narrow.view(), 1e-5F, a.view(), stream); },
      [&] { return rms_norm(weight.view(), weight.view(), 1e-5F, weight.view(), stream); },
      [&] { return rope(a.view(), a.view(), a.view(), stream); },
      [&] { return rope(heads.view(), odd_table.view(), heads.view(), stream); },
      [&] { return rope(heads.view(), wide_table.view(), heads.view(), stream); },
      [&] { return rope_table(a.view(), frequencies, 1.0F, a.view(), stream); },
      [&] { return rope_table(ids.view(), frequencies, 1.0F, a.view(), stream); },
      [&] { return embedding(a.view(), ids.view(), a.view(), stream); },
      [&] { return gather_rows(a.view(), negative.view(), a.view(), stream); },
      [&] { return gather_rows(a.view(), a.view(), a.view(), stream); },
  };
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i]().code(), StatusCode::kInvalidArgument) << "call " << i;
  }
}

}  // namespace
}  // namespace lamina::kernels
