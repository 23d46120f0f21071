#include <gtest/gtest.h>

#include <limits>

#include "kernels/attention.h"
#include "kernels/cuda/testing/device_rows.h"
#include "kernels/ref/attention.h"

namespace lamina::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class MergePartialsGpuTest : public CudaTest {};

struct Partial {
  TestTensor out;
  TestTensor lse;

  [[nodiscard]] AttentionPartial view() const { return {out.view(), lse.view()}; }
};

struct DevicePartial {
  DevicePartial(const Partial& from, const RowLayout& layout)
      : out(from.out, layout), lse(from.lse, layout) {}
  [[nodiscard]] AttentionPartial view() const { return {out.view(), lse.view()}; }

  DeviceRows out;
  DeviceRows lse;
};

Partial random_partial(uint64_t seed, int64_t head_dim) {
  Rng rng(seed);
  return {TestTensor::random(DType::kF32, {40, 3, head_dim}, rng),
          TestTensor::random(DType::kF32, {40, 3}, rng, 20.0F)};
}

Partial empty_partial(int64_t head_dim) {
  Partial partial = {TestTensor(DType::kF32, {40, 3, head_dim}), TestTensor(DType::kF32, {40, 3})};
  for (int64_t i = 0; i < partial.lse.size(); ++i) partial.lse.set(i, -kInfinity);
  return partial;
}

constexpr int64_t kHeadDims[] = {1, 7, 64, 100, 128, 512};

TEST_F(MergePartialsGpuTest, AgreesWithReference) {
  for (const int64_t head_dim : kHeadDims) {
    for (const RowLayout& layout : kRowLayouts) {
      const Partial from = random_partial(2, head_dim);
      const Partial expected = random_partial(1, head_dim);
      const DevicePartial device_from(from, layout);
      const DevicePartial device_into(expected, layout);
      ref::merge_partials(expected.view(), from.view());
      ASSERT_TRUE(merge_partials(device_into.view(), device_from.view(), stream()).ok());
      const std::string what = std::to_string(head_dim) + " layout " + name_of(layout);
      expect_near(device_into.out.to_host(stream()), expected.out, 1.0F, "out " + what);
      expect_near(device_into.lse.to_host(stream()), expected.lse, 1.0F, "lse " + what);
    }
  }
}

TEST_F(MergePartialsGpuTest, EmptyIsTheIdentityToTheBit) {
  for (const int64_t head_dim : kHeadDims) {
    const Partial a = random_partial(1, head_dim);
    const Partial empty = empty_partial(head_dim);
    for (const auto& [into, from, expected] :
         {std::tuple{&a, &empty, &a}, {&empty, &a, &a}, {&empty, &empty, &empty}}) {
      const DevicePartial device_into(*into, {});
      const DevicePartial device_from(*from, {});
      ASSERT_TRUE(merge_partials(device_into.view(), device_from.view(), stream()).ok());
      EXPECT_EQ(device_into.out.to_host(stream()), expected->out);
      EXPECT_EQ(device_into.lse.to_host(stream()), expected->lse);
    }
  }
}

TEST_F(MergePartialsGpuTest, TakesNoRows) {
  const DeviceTensor out(TestTensor(DType::kF32, {0, 3, 8}));
  const DeviceTensor lse(TestTensor(DType::kF32, {0, 3}));
  EXPECT_TRUE(merge_partials({out.view(), lse.view()}, {out.view(), lse.view()}, stream()).ok());
  EXPECT_TRUE(synchronize(stream()).ok());
}

}  // namespace
}  // namespace lamina::kernels
