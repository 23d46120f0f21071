#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/cuda/testing/device_rows.h"
#include "kernels/pointwise.h"
#include "kernels/ref/pointwise.h"

namespace lamina::kernels {
namespace {

constexpr Activation kActivations[] = {Activation::kRelu,
                                       Activation::kReluSquared,
                                       Activation::kSilu,
                                       Activation::kGelu,
                                       Activation::kGeluTanh,
                                       Activation::kQuickGelu,
                                       Activation::kSigmoid};

class PointwiseGpuTest : public CudaTest {
 protected:
  // body(dtype, width, layout, name of the case).
  template <typename Body>
  static void for_each_case(const Body& body) {
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t width : kGpuWidths) {
        for (const RowLayout& layout : kRowLayouts) {
          body(dtype,
               width,
               layout,
               fmt::format("{} width {} layout {}", dtype_name(dtype), width, name_of(layout)));
        }
      }
    }
  }

  // What call(out) writes to an out of that shape and layout.
  template <typename Call>
  TestTensor run(DType dtype, const Shape& shape, const RowLayout& layout, const Call& call) const {
    const DeviceRows out = DeviceRows::poisoned(dtype, shape, layout);
    const Status status = call(out.view());
    EXPECT_TRUE(status.ok()) << status.to_string();
    return out.to_host(stream());
  }
};

TEST_F(PointwiseGpuTest, SumsAndProductsAreExact) {
  for_each_case([&](DType dtype, int64_t width, const RowLayout& layout, const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const Shape shape = {5, width};
    const TestTensor a = TestTensor::random(dtype, shape, rng, 9.0F);
    const TestTensor b = TestTensor::random(dtype, shape, rng, 9.0F);
    const TestTensor factors = TestTensor::random(dtype, {5, 1}, rng, 9.0F);
    const DeviceRows device_a(a, layout);
    const DeviceRows device_b(b, layout);
    const DeviceRows device_factors(factors, layout);
    TestTensor expected(dtype, shape);
    ref::add(a.view(), b.view(), expected.view());
    const auto sum = run(dtype, shape, layout, [&](TensorView out) {
      return add(device_a.view(), device_b.view(), out, stream());
    });
    ASSERT_EQ(sum, expected) << "add " << what;
    ref::mul(a.view(), b.view(), expected.view());
    const auto product = run(dtype, shape, layout, [&](TensorView out) {
      return mul(device_a.view(), device_b.view(), out, stream());
    });
    ASSERT_EQ(product, expected) << "mul " << what;
    for (int64_t i = 0; i < a.size(); ++i) expected.set(i, a.at(i) * factors.at(i / width));
    const auto by_rows = run(dtype, shape, layout, [&](TensorView out) {
      return mul(device_a.view(), device_factors.view(), out, stream());
    });
    ASSERT_EQ(by_rows, expected) << "mul by rows " << what;
    for (int64_t i = 0; i < a.size(); ++i) expected.set(i, a.at(i) * 0.3F);
    const auto scaled = run(dtype, shape, layout, [&](TensorView out) {
      return scale(device_a.view(), 0.3F, out, stream());
    });
    ASSERT_EQ(scaled, expected) << "scale " << what;
  });
}

TEST_F(PointwiseGpuTest, WorksInPlace) {
  for_each_case([&](DType dtype, int64_t width, const RowLayout& layout, const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const Shape shape = {2, 3, width};
    const TestTensor a = TestTensor::random(dtype, shape, rng, 9.0F);
    const TestTensor b = TestTensor::random(dtype, shape, rng, 9.0F);
    const DeviceRows device_a(a, layout);
    const DeviceRows device_b(b, {});
    const TestTensor expected(dtype, shape);
    ref::add(a.view(), b.view(), expected.view());
    ASSERT_TRUE(add(device_a.view(), device_b.view(), device_a.view(), stream()).ok());
    ASSERT_EQ(device_a.to_host(stream()), expected) << what;
  });
}

TEST_F(PointwiseGpuTest, ActivationsAgreeWithReference) {
  for_each_case([&](DType dtype, int64_t width, const RowLayout& layout, const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const Shape shape = {5, width};
    const TestTensor x = TestTensor::random(dtype, shape, rng, 9.0F);
    const DeviceRows device_x(x, layout);
    const TestTensor expected(dtype, shape);
    for (const Activation kind : kActivations) {
      ref::activation(x.view(), kind, expected.view());
      const auto out = run(dtype, shape, layout, [&](TensorView to) {
        return activation(device_x.view(), kind, to, stream());
      });
      // The tail of the tanh form is a difference of large numbers in the reference's formula.
      expect_near(out, expected, 0.02F, fmt::format("{} {}", activation_name(kind), what));
    }
    for (const float cap : {0.5F, 30.0F}) {
      ref::soft_cap(x.view(), cap, expected.view());
      const auto out = run(dtype, shape, layout, [&](TensorView to) {
        return soft_cap(device_x.view(), cap, to, stream());
      });
      expect_near(out, expected, 0.0F, fmt::format("cap {} {}", cap, what));
    }
  });
}

// Relative to the exact value, where the result is small as well.
TEST_F(PointwiseGpuTest, GeluIsAccurateInItsTail) {
  TestTensor x(DType::kF32, {1, 4000});
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, static_cast<float>(i - 2000) * 0.006F);
  const DeviceTensor device_x(x);
  ASSERT_TRUE(activation(device_x.view(), Activation::kGelu, device_x.view(), stream()).ok());
  const TestTensor out = device_x.to_host(stream());
  for (int64_t i = 0; i < x.size(); ++i) {
    const double expected = ref::activate(x.at(i), Activation::kGelu);
    ASSERT_NEAR(out.at(i), expected, 2e-6 * std::fabs(expected)) << x.at(i);
  }
}

TEST_F(PointwiseGpuTest, ActivationsHoldAtTheEnds) {
  for (const Activation kind : kActivations) {
    TestTensor x(DType::kF32, {1, 6});
    const float values[] = {-1e30F, -200.0F, -90.0F, 0.0F, 200.0F, NAN};
    for (int64_t i = 0; i < 6; ++i) x.set(i, values[i]);
    const DeviceTensor device_x(x);
    ASSERT_TRUE(activation(device_x.view(), kind, device_x.view(), stream()).ok());
    const TestTensor out = device_x.to_host(stream());
    const std::string what(activation_name(kind));
    for (const int64_t i : {1, 2}) EXPECT_NEAR(out.at(i), 0.0F, 1e-30F) << what;
    EXPECT_FALSE(std::isnan(out.at(0))) << what;
    EXPECT_EQ(out.at(3), kind == Activation::kSigmoid ? 0.5F : 0.0F) << what;
    EXPECT_EQ(out.at(4), static_cast<float>(ref::activate(200.0, kind))) << what;
    EXPECT_TRUE(std::isnan(out.at(5))) << what;
  }
}

TEST_F(PointwiseGpuTest, GatedActivationsAgreeWithReference) {
  for_each_case([&](DType dtype, int64_t width, const RowLayout& layout, const std::string& what) {
    Rng rng(static_cast<uint64_t>(width));
    const TestTensor x = TestTensor::random(dtype, {5, 2, width}, rng, 9.0F);
    const DeviceRows device_x(x, layout);
    const TestTensor expected(dtype, {5, width});
    for (const std::optional<float> limit : {std::optional<float>(), std::optional(7.0F)}) {
      for (const Activation kind : kActivations) {
        const GatedActivationAttrs attrs{kind, limit};
        ref::gated_activation(x.view(), attrs, expected.view());
        const auto out = run(dtype, {5, width}, layout, [&](TensorView to) {
          return gated_activation(device_x.view(), attrs, to, stream());
        });
        expect_near(out, expected, 0.2F, fmt::format("{} {}", activation_name(kind), what));
      }
    }
  });
}

TEST_F(PointwiseGpuTest, GatedActivationOfF32IsActivationThenMul) {
  for (const Activation kind : kActivations) {
    for (const int64_t width : kGpuWidths) {
      Rng rng(static_cast<uint64_t>(width));
      const DeviceRows x(TestTensor::random(DType::kF32, {5, 2, width}, rng, 9.0F), {});
      TensorView gates = x.view().columns(0, 1);
      TensorView ups = x.view().columns(1, 1);
      gates.shape = ups.shape = {5, width};
      const auto apart = run(DType::kF32, {5, width}, {}, [&](TensorView out) {
        EXPECT_TRUE(activation(gates, kind, out, stream()).ok());
        return mul(out, ups, out, stream());
      });
      const auto at_once = run(DType::kF32, {5, width}, {}, [&](TensorView out) {
        return gated_activation(x.view(), {kind, std::nullopt}, out, stream());
      });
      ASSERT_EQ(at_once, apart) << activation_name(kind) << " width " << width;
    }
  }
}

// More rows than a grid has blocks in that direction, times the rows of a block.
TEST_F(PointwiseGpuTest, TakesManyRows) {
  Rng rng(11);
  const Shape shape = {600'000, 33};
  const TestTensor a = TestTensor::random(DType::kBF16, shape, rng);
  const TestTensor expected(DType::kBF16, shape);
  const DeviceRows device_a(a, {0, 7});
  ref::add(a.view(), a.view(), expected.view());
  const auto out = run(DType::kBF16, shape, {}, [&](TensorView to) {
    return add(device_a.view(), device_a.view(), to, stream());
  });
  ASSERT_EQ(out, expected);
}

TEST_F(PointwiseGpuTest, TakesNoRows) {
  const DeviceTensor x(TestTensor(DType::kF32, {0, 8}));
  const DeviceTensor factors(TestTensor(DType::kF32, {0, 1}));
  const DeviceTensor pair(TestTensor(DType::kF32, {0, 2, 8}));
  EXPECT_TRUE(add(x.view(), x.view(), x.view(), stream()).ok());
  EXPECT_TRUE(mul(x.view(), x.view(), x.view(), stream()).ok());
  EXPECT_TRUE(mul(x.view(), factors.view(), x.view(), stream()).ok());
  EXPECT_TRUE(scale(x.view(), 2.0F, x.view(), stream()).ok());
  EXPECT_TRUE(soft_cap(x.view(), 2.0F, x.view(), stream()).ok());
  EXPECT_TRUE(activation(x.view(), Activation::kSilu, x.view(), stream()).ok());
  EXPECT_TRUE(gated_activation(pair.view(), {}, x.view(), stream()).ok());
  EXPECT_TRUE(synchronize(stream()).ok());
}

}  // namespace
}  // namespace lamina::kernels
