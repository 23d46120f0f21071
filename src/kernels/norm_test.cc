#include "kernels/norm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/pointwise.h"
#include "kernels/ref/pointwise.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr int64_t kWidths[] = {1, 7, 8, 16, 31, 64, 100, 577};

const std::vector<NormAttrs> kKinds = {
    {NormKind::kRms, 1e-5F, 0.0F}, {NormKind::kRms, 1e-6F, 1.0F}, {NormKind::kLayer, 1e-5F, 0.0F}};

// body(dtype, width, attributes, name of the case) on every instruction set.
template <typename Body>
void for_each_case(const Body& body) {
  for_each_target([&] {
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t width : kWidths) {
        for (const NormAttrs& attrs : kKinds) {
          body(dtype,
               width,
               attrs,
               fmt::format("{} width {} kind {} offset {}",
                           dtype_name(dtype),
                           width,
                           static_cast<int>(attrs.kind),
                           attrs.weight_offset));
        }
      }
    }
  });
}

TEST(Norm, AgreesWithReference) {
  ThreadPool pool(2);
  for_each_case([&](DType dtype, int64_t width, const NormAttrs& attrs, const std::string& what) {
    if (width == 1 && attrs.kind == NormKind::kLayer) return;  // x - mean(x) is zero, or rounding
    for (const Shape& shape : {Shape{5, width}, Shape{3, 4, width}}) {
      for (const bool by_head : {false, true}) {
        if (by_head && shape.rank() != 3) continue;
        Rng rng(static_cast<uint64_t>(width));
        const Shape weight_shape = by_head ? Shape{4, width} : Shape{width};
        const TestTensor x = TestTensor::random(dtype, shape, rng, 3.0F);
        const TestTensor weight = TestTensor::random(dtype, weight_shape, rng, 2.0F);
        const TestTensor bias = TestTensor::random(dtype, weight_shape, rng, 2.0F);
        for (const TensorView& added : {TensorView(), bias.view()}) {
          TestTensor out(dtype, shape);
          const TestTensor expected(dtype, shape);
          const StreamView stream(pool);
          ASSERT_TRUE(norm({x.view(), weight.view(), added, out.view(), attrs}, stream).ok());
          ref::norm({x.view(), weight.view(), added, expected.view(), attrs});
          expect_near(out, expected, 4.0F, what);
          TestTensor in_place = x;
          ASSERT_TRUE(
              norm({in_place.view(), weight.view(), added, in_place.view(), attrs}, stream).ok());
          ASSERT_EQ(in_place, out) << what;
        }
      }
    }
  });
}

// A mean far from zero beside a small variance.
TEST(Norm, LayerNormKeepsItsAccuracyAwayFromZero) {
  for_each_target([&] {
    ThreadPool pool(1);
    Rng rng(3);
    TestTensor x = TestTensor::random(DType::kF32, {2, 300}, rng);
    for (int64_t i = 0; i < x.size(); ++i) x.set(i, x.at(i) + 1000.0F);
    TestTensor ones(DType::kF32, {300});
    for (int64_t i = 0; i < ones.size(); ++i) ones.set(i, 1.0F);
    TestTensor out(DType::kF32, {2, 300});
    const TestTensor expected(DType::kF32, {2, 300});
    const NormAttrs attrs{NormKind::kLayer, 1e-5F, 0.0F};
    ASSERT_TRUE(norm({x.view(), ones.view(), {}, out.view(), attrs}, StreamView(pool)).ok());
    ref::norm({x.view(), ones.view(), {}, expected.view(), attrs});
    // The mean is rounded to f32 once: half a unit in the last place of 1000.
    for (int64_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out.at(i), expected.at(i), 1.2e-4F);
  });
}

TEST(Norm, AddNormIsAddThenNormBitForBit) {
  ThreadPool pool(2);
  const StreamView stream(pool);
  for_each_case([&](DType dtype, int64_t width, const NormAttrs& attrs, const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const TestTensor a = TestTensor::random(dtype, {5, width}, rng, 3.0F);
    const TestTensor b = TestTensor::random(dtype, {5, width}, rng, 3.0F);
    const TestTensor weight = TestTensor::random(dtype, {width}, rng);
    const TestTensor bias = TestTensor::random(dtype, {width}, rng);
    TestTensor sum(dtype, {5, width});
    TestTensor normed(dtype, {5, width});
    TestTensor both(dtype, {5, 2, width});
    ASSERT_TRUE(add(a.view(), b.view(), sum.view(), stream).ok());
    ASSERT_TRUE(norm({sum.view(), weight.view(), bias.view(), normed.view(), attrs}, stream).ok());
    ASSERT_TRUE(
        add_norm({a.view(), b.view(), weight.view(), bias.view(), both.view(), attrs}, stream)
            .ok());
    for (int64_t i = 0; i < sum.size(); ++i) {
      const int64_t at = i / width * 2 * width + i % width;
      ASSERT_EQ(both.at(at), sum.at(i)) << what;
      ASSERT_EQ(both.at(at + width), normed.at(i)) << what;
    }
  });
}

TEST(Norm, RefusesWhatDoesNotFit) {
  ThreadPool pool(1);
  const StreamView stream(pool);
  const TestTensor x(DType::kF32, {3, 8});
  const TestTensor other(DType::kBF16, {3, 8});
  const TestTensor weight(DType::kF32, {8});
  const TestTensor narrow(DType::kF32, {7});
  const TestTensor heads(DType::kF32, {3, 2, 8});
  const TestTensor by_head(DType::kF32, {4, 8});
  const NormAttrs attrs;
  const NormAttrs bad_eps{NormKind::kRms, -1.0F, 0.0F};
  const std::vector<std::function<Status()>> calls = {
      [&] { return norm({x.view(), narrow.view(), {}, x.view(), attrs}, stream); },
      [&] { return norm({x.view(), weight.view(), narrow.view(), x.view(), attrs}, stream); },
      [&] { return norm({x.view(), weight.view(), {}, other.view(), attrs}, stream); },
      [&] { return norm({x.view(), weight.view(), {}, x.view(), bad_eps}, stream); },
      [&] { return norm({weight.view(), weight.view(), {}, weight.view(), attrs}, stream); },
      [&] { return norm({heads.view(), by_head.view(), {}, heads.view(), attrs}, stream); },
      [&] { return add_norm({x.view(), x.view(), weight.view(), {}, x.view(), attrs}, stream); },
      [&] {
        return add_norm({x.view(), other.view(), weight.view(), {}, heads.view(), attrs}, stream);
      },
  };
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i]().code(), StatusCode::kInvalidArgument) << "call " << i;
  }
}

}  // namespace
}  // namespace lamina::kernels
