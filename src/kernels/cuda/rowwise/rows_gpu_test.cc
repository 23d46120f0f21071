#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/cuda/testing/device_rows.h"
#include "kernels/ref/pointwise.h"
#include "kernels/rows.h"

namespace lamina::kernels {
namespace {

class RowsGpuTest : public CudaTest {};

TEST_F(RowsGpuTest, GathersAndLooksUp) {
  const TestTensor ids = TestTensor::of_i32({4, 0, 4, 2, 1, 3});
  const DeviceTensor device_ids(ids);
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t width : kGpuWidths) {
      Rng rng(6);
      const TestTensor table = TestTensor::random(dtype, {5, width}, rng);
      const TestTensor expected(dtype, {6, width});
      ref::gather_rows(table.view(), ids.view(), expected.view());
      for (const RowLayout& layout : kRowLayouts) {
        const DeviceRows device_table(table, layout);
        const DeviceRows out = DeviceRows::poisoned(dtype, {6, width}, layout);
        ASSERT_TRUE(embedding(device_table.view(), device_ids.view(), out.view(), stream()).ok());
        ASSERT_EQ(out.to_host(stream()), expected) << width;
        const DeviceRows rows = DeviceRows::poisoned(dtype, {6, width}, {0, 2});
        ASSERT_TRUE(
            gather_rows(device_table.view(), device_ids.view(), rows.view(), stream()).ok());
        ASSERT_EQ(rows.to_host(stream()), expected) << width;
      }
    }
  }
}

TEST_F(RowsGpuTest, ShardsOfATableAndZeros) {
  const std::vector<int32_t> values = {4, 0, 5, 2, 1, 3};
  const DeviceTensor ids(TestTensor::of_i32(values));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t width : kGpuWidths) {
      Rng rng(8);
      const TestTensor shard = TestTensor::random(dtype, {2, width}, rng);  // rows 2 and 3
      const DeviceTensor device_shard(shard);
      TestTensor expected(dtype, {6, width});
      for (int64_t i = 0; i < expected.size(); ++i) {
        const int64_t row = values[static_cast<size_t>(i / width)] - 2;
        expected.set(i, row == 0 || row == 1 ? shard.at(row * width + i % width) : 0.0F);
      }
      for (const RowLayout& layout : kRowLayouts) {
        const DeviceRows out = DeviceRows::poisoned(dtype, {6, width}, layout);
        ASSERT_TRUE(embedding_shard(device_shard.view(), 2, ids.view(), out.view(), stream()).ok());
        ASSERT_EQ(out.to_host(stream()), expected) << width;
      }
    }
  }
}

TEST_F(RowsGpuTest, IdsOutOfRangeGiveZeros) {
  Rng rng(9);
  const DeviceTensor ids(TestTensor::of_i32({-1, 3, INT32_MAX, INT32_MIN}));
  const DeviceTensor table(TestTensor::random(DType::kBF16, {3, 40}, rng));
  const DeviceRows out = DeviceRows::poisoned(DType::kBF16, {4, 40}, {});
  ASSERT_TRUE(embedding(table.view(), ids.view(), out.view(), stream()).ok());
  EXPECT_EQ(out.to_host(stream()), TestTensor(DType::kBF16, {4, 40}));
}

TEST_F(RowsGpuTest, ConcatenatesHeadByHead) {
  for (const DType dtype : kFloatDTypes) {
    for (const auto& [a_width, b_width] :
         {std::pair<int64_t, int64_t>{5, 3}, {1, 7}, {128, 64}, {512, 64}, {6, 2}, {4096, 1}}) {
      for (const RowLayout& layout : kRowLayouts) {
        Rng rng(9);
        const TestTensor a = TestTensor::random(dtype, {3, 2, a_width}, rng);
        const TestTensor b = TestTensor::random(dtype, {3, 4, b_width}, rng);  // two heads of four
        const int64_t width = a_width + b_width;
        TestTensor expected(dtype, {3, 2, width});
        for (int64_t i = 0; i < expected.size(); ++i) {
          const int64_t t = i / (2 * width);
          const int64_t head = i / width % 2;
          const int64_t k = i % width;
          expected.set(i,
                       k < a_width ? a.at((t * 2 + head) * a_width + k)
                                   : b.at((t * 4 + head + 1) * b_width + k - a_width));
        }
        const DeviceRows device_a(a, layout);
        const DeviceTensor device_b(b);
        const DeviceRows out = DeviceRows::poisoned(dtype, {3, 2, width}, layout);
        ASSERT_TRUE(
            concat(device_a.view(), device_b.view().columns(1, 2), out.view(), stream()).ok());
        ASSERT_EQ(out.to_host(stream()), expected) << fmt::format("{} + {}", a_width, b_width);
      }
    }
  }
}

TEST_F(RowsGpuTest, TakesNoRows) {
  const DeviceTensor ids(TestTensor::of_i32({}));
  const DeviceTensor table(TestTensor(DType::kF32, {3, 8}));
  const DeviceTensor out(TestTensor(DType::kF32, {0, 8}));
  const DeviceTensor heads(TestTensor(DType::kF32, {0, 2, 8}));
  const DeviceTensor joined(TestTensor(DType::kF32, {0, 2, 16}));
  EXPECT_TRUE(embedding(table.view(), ids.view(), out.view(), stream()).ok());
  EXPECT_TRUE(embedding_shard(table.view(), 3, ids.view(), out.view(), stream()).ok());
  EXPECT_TRUE(gather_rows(table.view(), ids.view(), out.view(), stream()).ok());
  EXPECT_TRUE(concat(heads.view(), heads.view(), joined.view(), stream()).ok());
  EXPECT_TRUE(synchronize(stream()).ok());
}

}  // namespace
}  // namespace lamina::kernels
