#include <fmt/format.h>
#include <gtest/gtest.h>

#include <deque>

#include "kernels/cuda/testing/device_rows.h"
#include "kernels/parts.h"

namespace lamina::kernels {
namespace {

class PartsGpuTest : public CudaTest {};

struct Parts {
  Parts(DType dtype, const Shape& shape, int count, const RowLayout& layout) {
    Rng rng(7);
    for (int i = 0; i < count; ++i) {
      host.push_back(TestTensor::random(dtype, shape, rng));
      device.emplace_back(host.back(), layout);
      views.push_back(device.back().view());
    }
  }

  std::vector<TestTensor> host;
  std::deque<DeviceRows> device;
  std::vector<TensorView> views;
};

TEST_F(PartsGpuTest, SumsInF32AndRoundsOnce) {
  for (const DType dtype : kFloatDTypes) {
    for (const int count : {1, 2, 5, 16}) {
      for (const int64_t width : {1, 7, 100, 577, 4096}) {
        for (const RowLayout& layout : kRowLayouts) {
          const Shape shape = {5, width};
          const Parts parts(dtype, shape, count, layout);
          TestTensor expected(dtype, shape);
          for (int64_t i = 0; i < expected.size(); ++i) {
            float sum = 0.0F;
            for (const TestTensor& part : parts.host) sum += part.at(i);
            expected.set(i, sum);
          }
          const DeviceRows out = DeviceRows::poisoned(dtype, shape, layout);
          ASSERT_TRUE(sum_parts(parts.views, out.view(), stream()).ok());
          ASSERT_EQ(out.to_host(stream()), expected) << fmt::format("{} parts of {}", count, width);
        }
      }
    }
  }
}

TEST_F(PartsGpuTest, JoinsColumnsRankByRank) {
  for (const DType dtype : kFloatDTypes) {
    for (const int count : {1, 3, 16}) {
      for (const int64_t width : {1, 7, 64, 100, 577, 1000}) {
        for (const RowLayout& layout : kRowLayouts) {
          const Parts parts(dtype, {5, width}, count, layout);
          const int64_t joined = count * width;
          TestTensor expected(dtype, {5, joined});
          for (int64_t i = 0; i < expected.size(); ++i) {
            const int64_t at = i % joined;
            expected.set(
                i, parts.host[static_cast<size_t>(at / width)].at(i / joined * width + at % width));
          }
          const DeviceRows out = DeviceRows::poisoned(dtype, {5, joined}, layout);
          ASSERT_TRUE(join_columns(parts.views, out.view(), stream()).ok());
          ASSERT_EQ(out.to_host(stream()), expected) << fmt::format("{} parts of {}", count, width);
        }
      }
    }
  }
}

TEST_F(PartsGpuTest, RefusesTooManyParts) {
  const Parts parts(DType::kF32, {2, 3}, 17, {});
  const DeviceTensor sum(TestTensor(DType::kF32, {2, 3}));
  const DeviceTensor joined(TestTensor(DType::kF32, {2, 51}));
  EXPECT_EQ(sum_parts(parts.views, sum.view(), stream()).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(join_columns(parts.views, joined.view(), stream()).code(),
            StatusCode::kInvalidArgument);
}

TEST_F(PartsGpuTest, TakesNoRows) {
  const Parts parts(DType::kF32, {0, 3}, 2, {});
  const DeviceTensor sum(TestTensor(DType::kF32, {0, 3}));
  const DeviceTensor joined(TestTensor(DType::kF32, {0, 6}));
  EXPECT_TRUE(sum_parts(parts.views, sum.view(), stream()).ok());
  EXPECT_TRUE(join_columns(parts.views, joined.view(), stream()).ok());
  EXPECT_TRUE(synchronize(stream()).ok());
}

}  // namespace
}  // namespace lamina::kernels
