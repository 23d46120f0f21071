#include <fmt/format.h>
#include <gtest/gtest.h>

#include <utility>

#include "kernels/cuda/testing/device_rows.h"
#include "kernels/ref/pointwise.h"
#include "kernels/rope.h"

namespace lamina::kernels {
namespace {

class RopeGpuTest : public CudaTest {
 protected:
  static std::vector<float> inv_freq_of(int64_t rotated) {
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < rotated / 2; ++i) {
      inv_freq.push_back(
          std::pow(10000.0F, -2.0F * static_cast<float>(i) / static_cast<float>(rotated)));
    }
    return inv_freq;
  }

  // Of a table that is the same on both sides: the rotation alone, apart and in place.
  void expect_rotation(const TestTensor& x,
                       const TestTensor& table,
                       const RowLayout& layout,
                       const std::string& what) const {
    const DType dtype = x.view().dtype;
    const DeviceRows device_table(table, layout);
    for (const bool interleaved : {false, true}) {
      const DeviceRows device_x(x, layout);
      const DeviceRows out = DeviceRows::poisoned(dtype, x.view().shape, layout);
      const TestTensor expected(dtype, x.view().shape);
      ref::rope(x.view(), table.view(), interleaved, expected.view());
      ASSERT_TRUE(
          rope(device_x.view(), device_table.view(), interleaved, out.view(), stream()).ok());
      const TestTensor result = out.to_host(stream());
      expect_near(result, expected, 2.5F, fmt::format("{} interleaved {}", what, interleaved));
      ASSERT_TRUE(
          rope(device_x.view(), device_table.view(), interleaved, device_x.view(), stream()).ok());
      ASSERT_EQ(device_x.to_host(stream()), result) << what;
    }
  }
};

TEST_F(RopeGpuTest, TableAgreesWithReference) {
  const TestTensor positions = TestTensor::of_i32({0, 1, 17, 100000, 131071});
  const DeviceTensor device_positions(positions);
  for (const int64_t rotated : {2, 20, 64, 128, 1024}) {
    const std::vector<float> inv_freq = inv_freq_of(rotated);
    const TestTensor expected(DType::kF32, {5, rotated});
    ref::rope_table(positions.view(), inv_freq, 1.25F, expected.view());
    for (const RowLayout& layout : kRowLayouts) {
      const DeviceRows table = DeviceRows::poisoned(DType::kF32, {5, rotated}, layout);
      ASSERT_TRUE(
          rope_table(device_positions.view(), inv_freq, 1.25F, table.view(), stream()).ok());
      expect_near(table.to_host(stream()), expected, 1.25F, fmt::format("table {}", rotated));
    }
  }
}

TEST_F(RopeGpuTest, RotationAgreesWithReference) {
  const TestTensor positions = TestTensor::of_i32({0, 1, 17, 100000});
  for (const DType dtype : kFloatDTypes) {
    for (const auto& [head_dim, rotated] : {std::pair<int64_t, int64_t>{8, 8},
                                            {64, 64},
                                            {128, 128},
                                            {80, 80},
                                            {80, 20},
                                            {96, 32},
                                            {6, 2},
                                            {7, 4},
                                            {24, 24},
                                            {64, 0},
                                            {576, 64}}) {
      const TestTensor table(DType::kF32, {4, rotated});
      ref::rope_table(positions.view(), inv_freq_of(rotated), 1.0F, table.view());
      for (const int64_t num_heads : {1, 3, 40}) {
        Rng rng(5);
        const TestTensor x = TestTensor::random(dtype, {4, num_heads, head_dim}, rng);
        for (const RowLayout& layout : kRowLayouts) {
          expect_rotation(x,
                          table,
                          layout,
                          fmt::format("{} head {} rotated {} layout {}",
                                      dtype_name(dtype),
                                      head_dim,
                                      rotated,
                                      name_of(layout)));
        }
      }
    }
  }
}

TEST_F(RopeGpuTest, RefusesTooManyFrequencies) {
  const DeviceTensor positions(TestTensor::of_i32({0}));
  const DeviceTensor table(TestTensor(DType::kF32, {1, 1026}));
  EXPECT_EQ(rope_table(positions.view(), inv_freq_of(1026), 1.0F, table.view(), stream()).code(),
            StatusCode::kInvalidArgument);
}

TEST_F(RopeGpuTest, TakesNoRows) {
  const DeviceTensor positions(TestTensor::of_i32({}));
  const DeviceTensor table(TestTensor(DType::kF32, {0, 8}));
  const DeviceTensor x(TestTensor(DType::kF32, {0, 2, 8}));
  EXPECT_TRUE(rope_table(positions.view(), inv_freq_of(8), 1.0F, table.view(), stream()).ok());
  EXPECT_TRUE(rope(x.view(), table.view(), false, x.view(), stream()).ok());
  EXPECT_TRUE(synchronize(stream()).ok());
}

}  // namespace
}  // namespace lamina::kernels
