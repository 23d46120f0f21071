#include "kernels/pointwise.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/ref/pointwise.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr int64_t kWidths[] = {1, 7, 8, 16, 31, 64, 100, 577};
constexpr Activation kActivations[] = {Activation::kRelu,
                                       Activation::kReluSquared,
                                       Activation::kSilu,
                                       Activation::kGelu,
                                       Activation::kGeluTanh,
                                       Activation::kQuickGelu,
                                       Activation::kSigmoid};

// body(dtype, width, name of the case) on every instruction set.
template <typename Body>
void for_each_case(const Body& body) {
  for_each_target([&] {
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t width : kWidths) {
        body(dtype, width, fmt::format("{} width {}", dtype_name(dtype), width));
      }
    }
  });
}

TEST(Pointwise, SumsAndProductsAreExact) {
  ThreadPool pool(2);
  const StreamView stream(pool);
  for_each_case([&](DType dtype, int64_t width, const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const TestTensor a = TestTensor::random(dtype, {5, width}, rng, 9.0F);
    const TestTensor b = TestTensor::random(dtype, {5, width}, rng, 9.0F);
    const TestTensor factors = TestTensor::random(dtype, {5, 1}, rng, 9.0F);
    TestTensor out(dtype, {5, width});
    TestTensor expected(dtype, {5, width});
    ASSERT_TRUE(add(a.view(), b.view(), out.view(), stream).ok());
    ref::add(a.view(), b.view(), expected.view());
    ASSERT_EQ(out, expected) << "add " << what;
    ASSERT_TRUE(mul(a.view(), b.view(), out.view(), stream).ok());
    ref::mul(a.view(), b.view(), expected.view());
    ASSERT_EQ(out, expected) << "mul " << what;
    ASSERT_TRUE(mul(a.view(), factors.view(), out.view(), stream).ok());
    for (int64_t i = 0; i < a.size(); ++i) expected.set(i, a.at(i) * factors.at(i / width));
    ASSERT_EQ(out, expected) << "mul by rows " << what;
    ASSERT_TRUE(scale(a.view(), 0.3F, out.view(), stream).ok());
    for (int64_t i = 0; i < a.size(); ++i) expected.set(i, a.at(i) * 0.3F);
    ASSERT_EQ(out, expected) << "scale " << what;
  });
}

TEST(Pointwise, ActivationsAgreeWithReference) {
  ThreadPool pool(2);
  const StreamView stream(pool);
  for_each_case([&](DType dtype, int64_t width, const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const TestTensor x = TestTensor::random(dtype, {5, width}, rng, 9.0F);
    TestTensor out(dtype, {5, width});
    const TestTensor expected(dtype, {5, width});
    for (const Activation kind : kActivations) {
      ASSERT_TRUE(activation(x.view(), kind, out.view(), stream).ok());
      ref::activation(x.view(), kind, expected.view());
      // The tail of the tanh form is a difference of large numbers in the reference's formula.
      expect_near(out, expected, 0.02F, fmt::format("{} {}", activation_name(kind), what));
    }
    for (const float cap : {0.5F, 30.0F}) {
      ASSERT_TRUE(soft_cap(x.view(), cap, out.view(), stream).ok());
      ref::soft_cap(x.view(), cap, expected.view());
      expect_near(out, expected, 0.0F, fmt::format("cap {} {}", cap, what));
    }
  });
}

// Relative to the exact value, where the result is small as well.
TEST(Pointwise, GeluIsAccurateInItsTail) {
  for_each_target([&] {
    ThreadPool pool(1);
    TestTensor x(DType::kF32, {1, 4000});
    for (int64_t i = 0; i < x.size(); ++i) x.set(i, static_cast<float>(i - 2000) * 0.006F);
    TestTensor out(DType::kF32, {1, 4000});
    ASSERT_TRUE(activation(x.view(), Activation::kGelu, out.view(), StreamView(pool)).ok());
    for (int64_t i = 0; i < x.size(); ++i) {
      const double expected = ref::activate(x.at(i), Activation::kGelu);
      // exp() multiplies the rounding of its argument, up to 72, into the result.
      ASSERT_NEAR(out.at(i), expected, 1.2e-5 * std::fabs(expected)) << x.at(i);
    }
  });
}

TEST(Pointwise, ActivationsHoldAtTheEnds) {
  for_each_target([&] {
    ThreadPool pool(1);
    for (const Activation kind : kActivations) {
      TestTensor x(DType::kF32, {1, 6});
      const float values[] = {-1e30F, -200.0F, -90.0F, 0.0F, 200.0F, NAN};
      for (int64_t i = 0; i < 6; ++i) x.set(i, values[i]);
      ASSERT_TRUE(activation(x.view(), kind, x.view(), StreamView(pool)).ok());
      const std::string what(activation_name(kind));
      for (const int64_t i : {1, 2}) EXPECT_NEAR(x.at(i), 0.0F, 1e-30F) << what;
      EXPECT_FALSE(std::isnan(x.at(0))) << what;
      EXPECT_EQ(x.at(3), kind == Activation::kSigmoid ? 0.5F : 0.0F) << what;
      EXPECT_EQ(x.at(4), static_cast<float>(ref::activate(200.0, kind))) << what;
      EXPECT_TRUE(std::isnan(x.at(5))) << what;
    }
  });
}

TEST(Pointwise, GatedActivationsAgreeWithReference) {
  ThreadPool pool(2);
  const StreamView stream(pool);
  for_each_case([&](DType dtype, int64_t width, const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const TestTensor x = TestTensor::random(dtype, {5, 2, width}, rng, 9.0F);
    TestTensor out(dtype, {5, width});
    const TestTensor expected(dtype, {5, width});
    for (const GatedActivationAttrs& attrs :
         {GatedActivationAttrs{Activation::kSilu, std::nullopt},
          GatedActivationAttrs{Activation::kGeluTanh, std::nullopt},
          GatedActivationAttrs{Activation::kQuickGelu, 7.0F}}) {
      ASSERT_TRUE(gated_activation(x.view(), attrs, out.view(), stream).ok());
      ref::gated_activation(x.view(), attrs, expected.view());
      expect_near(out, expected, 0.2F, what);
    }
    if (dtype != DType::kF32) return;
    TestTensor apart(dtype, {5, width});
    TensorView gates = x.view().columns(0, 1);
    TensorView ups = x.view().columns(1, 1);
    gates.shape = ups.shape = {5, width};
    ASSERT_TRUE(activation(gates, Activation::kSilu, apart.view(), stream).ok());
    ASSERT_TRUE(mul(apart.view(), ups, apart.view(), stream).ok());
    ASSERT_TRUE(gated_activation(x.view(), {}, out.view(), stream).ok());
    ASSERT_EQ(out, apart) << what;
  });
}

TEST(Pointwise, RopeAgreesWithReference) {
  for_each_target([&] {
    ThreadPool pool(2);
    const StreamView stream(pool);
    const TestTensor positions = TestTensor::of_i32({0, 1, 17, 100000});
    for (const DType dtype : kFloatDTypes) {
      for (const auto& [head_dim, rotated] :
           {std::pair{8, 8}, {64, 64}, {80, 80}, {80, 20}, {6, 2}, {576, 64}}) {
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

        for (const bool interleaved : {false, true}) {
          Rng rng(5);
          const TestTensor x = TestTensor::random(dtype, {4, 3, head_dim}, rng);
          TestTensor out(dtype, {4, 3, head_dim});
          const TestTensor expected(dtype, {4, 3, head_dim});
          ASSERT_TRUE(rope(x.view(), table.view(), interleaved, out.view(), stream).ok());
          ref::rope(x.view(), table.view(), interleaved, expected.view());
          expect_near(out, expected, 2.5F, fmt::format("{} {}", dtype_name(dtype), head_dim));
          TestTensor in_place = x;
          ASSERT_TRUE(
              rope(in_place.view(), table.view(), interleaved, in_place.view(), stream).ok());
          ASSERT_EQ(in_place, out);
        }
      }
    }
  });
}

TEST(Rows, GathersAndLooksUp) {
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

TEST(Rows, ShardsOfATableAddUpToIt) {
  ThreadPool pool(1);
  const StreamView stream(pool);
  const TestTensor ids = TestTensor::of_i32({4, 0, 5, 2});
  Rng rng(8);
  const TestTensor table = TestTensor::random(DType::kF32, {6, 9}, rng);
  TestTensor whole(DType::kF32, {4, 9});
  TestTensor low(DType::kF32, {4, 9});
  TestTensor high(DType::kF32, {4, 9});
  low.poison();
  high.poison();
  ASSERT_TRUE(embedding(table.view(), ids.view(), whole.view(), stream).ok());
  ASSERT_TRUE(embedding_shard(table.view().rows(0, 3), 0, ids.view(), low.view(), stream).ok());
  ASSERT_TRUE(embedding_shard(table.view().rows(3, 3), 3, ids.view(), high.view(), stream).ok());
  for (int64_t i = 0; i < whole.size(); ++i) EXPECT_EQ(low.at(i) + high.at(i), whole.at(i));
}

TEST(Rows, ConcatenatesHeadByHead) {
  ThreadPool pool(1);
  for (const DType dtype : kFloatDTypes) {
    Rng rng(9);
    const TestTensor a = TestTensor::random(dtype, {3, 2, 5}, rng);
    const TestTensor b = TestTensor::random(dtype, {3, 4, 3}, rng);  // two heads of four
    TestTensor out(dtype, {3, 2, 8});
    ASSERT_TRUE(concat(a.view(), b.view().columns(1, 2), out.view(), StreamView(pool)).ok());
    for (int64_t i = 0; i < out.size(); ++i) {
      const int64_t t = i / 16;
      const int64_t head = i / 8 % 2;
      const int64_t k = i % 8;
      EXPECT_EQ(out.at(i),
                k < 5 ? a.at((t * 2 + head) * 5 + k) : b.at((t * 4 + head + 1) * 3 + k - 5));
    }
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
      [&] { return scale(a.view(), 2.0F, narrow.view(), stream); },
      [&] { return soft_cap(a.view(), 0.0F, a.view(), stream); },
      [&] { return activation(a.view(), Activation::kSilu, narrow.view(), stream); },
      [&] { return activation(ids.view(), Activation::kSilu, ids.view(), stream); },
      [&] { return gated_activation(a.view(), {}, a.view(), stream); },
      [&] { return gated_activation(heads.view(), {}, narrow.view(), stream); },
      [&] { return rope(a.view(), a.view(), false, a.view(), stream); },
      [&] { return rope(heads.view(), odd_table.view(), false, heads.view(), stream); },
      [&] { return rope(heads.view(), wide_table.view(), true, heads.view(), stream); },
      [&] { return rope_table(a.view(), frequencies, 1.0F, a.view(), stream); },
      [&] { return rope_table(ids.view(), frequencies, 1.0F, a.view(), stream); },
      [&] { return embedding(a.view(), ids.view(), a.view(), stream); },
      [&] { return embedding_shard(a.view(), -1, ids.view(), a.view(), stream); },
      [&] { return embedding_shard(a.view(), 0, negative.view(), a.view(), stream); },
      [&] { return gather_rows(a.view(), negative.view(), a.view(), stream); },
      [&] { return gather_rows(a.view(), a.view(), a.view(), stream); },
      [&] { return concat(heads.view(), a.view(), heads.view(), stream); },
      [&] { return concat(heads.view(), heads.view(), heads.view(), stream); },
  };
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i]().code(), StatusCode::kInvalidArgument) << "call " << i;
  }
}

}  // namespace
}  // namespace lamina::kernels
