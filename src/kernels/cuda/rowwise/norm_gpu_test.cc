#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/cuda/testing/device_rows.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "kernels/ref/pointwise.h"

namespace lamina::kernels {
namespace {

// The last two: the widest that stay in registers, and wider.
constexpr int64_t kWidths[] = {1, 7, 64, 100, 128, 577, 4096, 5120, 8192, 16384, 16388};

const std::vector<NormAttrs> kKinds = {
    {NormKind::kRms, 1e-5F, 0.0F}, {NormKind::kRms, 1e-6F, 1.0F}, {NormKind::kLayer, 1e-5F, 0.0F}};

class NormGpuTest : public CudaTest {
 protected:
  // body(dtype, width, attributes, layout, name of the case).
  template <typename Body>
  static void for_each_case(const Body& body) {
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t width : kWidths) {
        for (const NormAttrs& attrs : kKinds) {
          for (const RowLayout& layout : kRowLayouts) {
            const std::string what = fmt::format("{} width {} kind {} offset {} layout {}",
                                                 dtype_name(dtype),
                                                 width,
                                                 static_cast<int>(attrs.kind),
                                                 attrs.weight_offset,
                                                 name_of(layout));
            body(dtype, width, attrs, layout, what);
          }
        }
      }
    }
  }

  // Of x [T, ..., D]: apart and in place, with a bias and without.
  void expect_norm(const Shape& shape,
                   const Shape& weight_shape,
                   DType dtype,
                   const NormAttrs& attrs,
                   const RowLayout& layout,
                   const std::string& what) const {
    Rng rng(static_cast<uint64_t>(shape[-1]));
    const TestTensor x = TestTensor::random(dtype, shape, rng, 3.0F);
    const TestTensor weight = TestTensor::random(dtype, weight_shape, rng, 2.0F);
    const TestTensor bias = TestTensor::random(dtype, weight_shape, rng, 2.0F);
    const DeviceTensor on_device_weight(weight);
    const DeviceTensor on_device_bias(bias);
    for (const bool has_bias : {false, true}) {
      const DeviceRows in(x, layout);
      const DeviceRows out = DeviceRows::poisoned(dtype, shape, layout);
      const TestTensor expected(dtype, shape);
      const TensorView added = has_bias ? on_device_bias.view() : TensorView();
      ref::norm(
          {x.view(), weight.view(), has_bias ? bias.view() : TensorView(), expected.view(), attrs});
      ASSERT_TRUE(
          norm({in.view(), on_device_weight.view(), added, out.view(), attrs}, stream()).ok());
      const TestTensor result = out.to_host(stream());
      expect_near(result, expected, 4.0F, what);
      ASSERT_TRUE(
          norm({in.view(), on_device_weight.view(), added, in.view(), attrs}, stream()).ok());
      ASSERT_EQ(in.to_host(stream()), result) << what;
    }
  }
};

TEST_F(NormGpuTest, AgreesWithReference) {
  for_each_case([&](DType dtype,
                    int64_t width,
                    const NormAttrs& attrs,
                    const RowLayout& layout,
                    const std::string& what) {
    if (width == 1 && attrs.kind == NormKind::kLayer) return;  // x - mean(x) is zero, or rounding
    expect_norm({3, width}, {width}, dtype, attrs, layout, what);
    if (width > 1000) return;
    expect_norm({3, 5, width}, {width}, dtype, attrs, layout, what + " heads");
    expect_norm({3, 5, width}, {5, width}, dtype, attrs, layout, what + " by head");
  });
}

TEST_F(NormGpuTest, AddNormIsAddThenNormBitForBit) {
  for_each_case([&](DType dtype,
                    int64_t width,
                    const NormAttrs& attrs,
                    const RowLayout& layout,
                    const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const Shape shape = {3, width};
    const DeviceRows a(TestTensor::random(dtype, shape, rng, 3.0F), layout);
    const DeviceRows b(TestTensor::random(dtype, shape, rng, 3.0F), layout);
    const DeviceTensor weight(TestTensor::random(dtype, {width}, rng));
    const DeviceTensor bias(TestTensor::random(dtype, {width}, rng));
    const DeviceRows on_device_sum = DeviceRows::poisoned(dtype, shape, {});
    const DeviceRows on_device_normed = DeviceRows::poisoned(dtype, shape, {});
    const DeviceRows on_device_both = DeviceRows::poisoned(dtype, {3, 2, width}, layout);
    ASSERT_TRUE(add(a.view(), b.view(), on_device_sum.view(), stream()).ok());
    ASSERT_TRUE(
        norm({on_device_sum.view(), weight.view(), bias.view(), on_device_normed.view(), attrs},
             stream())
            .ok());
    ASSERT_TRUE(
        add_norm({a.view(), b.view(), weight.view(), bias.view(), on_device_both.view(), attrs},
                 stream())
            .ok());
    const TestTensor sum = on_device_sum.to_host(stream());
    const TestTensor normed = on_device_normed.to_host(stream());
    const TestTensor both = on_device_both.to_host(stream());
    for (int64_t i = 0; i < sum.size(); ++i) {
      const int64_t at = i / width * 2 * width + i % width;
      ASSERT_EQ(both.at(at), sum.at(i)) << what;
      ASSERT_EQ(both.at(at + width), normed.at(i)) << what;
    }
  });
}

// A row's bits are the same whatever else is in the batch.
TEST_F(NormGpuTest, RowsDoNotDependOnTheBatch) {
  Rng rng(5);
  for (const int64_t width : {64, 577, 5120}) {
    const TestTensor x = TestTensor::random(DType::kF32, {1000, width}, rng);
    const DeviceTensor in(x);
    const DeviceTensor weight(TestTensor::random(DType::kF32, {width}, rng));
    const DeviceRows all = DeviceRows::poisoned(DType::kF32, {1000, width}, {});
    const DeviceRows one = DeviceRows::poisoned(DType::kF32, {1, width}, {});
    ASSERT_TRUE(norm({in.view(), weight.view(), {}, all.view(), {}}, stream()).ok());
    ASSERT_TRUE(norm({in.view().rows(999, 1), weight.view(), {}, one.view(), {}}, stream()).ok());
    const TestTensor rows = all.to_host(stream());
    const TestTensor row = one.to_host(stream());
    for (int64_t i = 0; i < width; ++i) ASSERT_EQ(row.at(i), rows.at(999 * width + i)) << width;
  }
}

// A mean far from zero beside a small variance.
TEST_F(NormGpuTest, LayerNormKeepsItsAccuracyAwayFromZero) {
  Rng rng(3);
  TestTensor x = TestTensor::random(DType::kF32, {2, 300}, rng);
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, x.at(i) + 1000.0F);
  TestTensor ones(DType::kF32, {300});
  for (int64_t i = 0; i < ones.size(); ++i) ones.set(i, 1.0F);
  const DeviceTensor in(x);
  const DeviceTensor weight(ones);
  const TestTensor expected(DType::kF32, {2, 300});
  const NormAttrs attrs{NormKind::kLayer, 1e-5F, 0.0F};
  ASSERT_TRUE(norm({in.view(), weight.view(), {}, in.view(), attrs}, stream()).ok());
  ref::norm({x.view(), ones.view(), {}, expected.view(), attrs});
  const TestTensor out = in.to_host(stream());
  // The mean is rounded to f32 once: half a unit in the last place of 1000.
  for (int64_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out.at(i), expected.at(i), 1.2e-4F);
}

TEST_F(NormGpuTest, TakesNoRows) {
  const DeviceTensor x(TestTensor(DType::kF32, {0, 8}));
  const DeviceTensor both(TestTensor(DType::kF32, {0, 2, 8}));
  const DeviceTensor weight(TestTensor(DType::kF32, {8}));
  EXPECT_TRUE(norm({x.view(), weight.view(), {}, x.view(), {}}, stream()).ok());
  EXPECT_TRUE(add_norm({x.view(), x.view(), weight.view(), {}, both.view(), {}}, stream()).ok());
  EXPECT_TRUE(synchronize(stream()).ok());
}

}  // namespace
}  // namespace lamina::kernels
