#include "kernels/parts.h"

#include <gtest/gtest.h>

#include "device/thread_pool.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

std::vector<TestTensor> random_parts(DType dtype, const Shape& shape, int count) {
  Rng rng(7);
  std::vector<TestTensor> parts;
  for (int i = 0; i < count; ++i) parts.push_back(TestTensor::random(dtype, shape, rng));
  return parts;
}

std::vector<TensorView> views(const std::vector<TestTensor>& tensors) {
  std::vector<TensorView> found;
  for (const TestTensor& tensor : tensors) found.push_back(tensor.view());
  return found;
}

TEST(PartsTest, SumsInF32AndRoundsOnce) {
  ThreadPool pool(2);
  for (const DType dtype : kFloatDTypes) {
    for (const int count : {1, 2, 4}) {
      for (const int64_t width : {1, 255, 1000}) {
        const Shape shape = {33, width};
        const auto parts = random_parts(dtype, shape, count);
        TestTensor expected(dtype, shape);
        for (int64_t i = 0; i < expected.size(); ++i) {
          float sum = 0.0F;
          for (const TestTensor& part : parts) sum += part.at(i);
          expected.set(i, sum);
        }
        TestTensor out(dtype, shape);
        out.poison();
        ASSERT_TRUE(sum_parts(views(parts), out.view(), StreamView(pool)).ok());
        EXPECT_TRUE(out == expected);
      }
    }
  }
}

TEST(PartsTest, JoinsColumnsRankByRank) {
  ThreadPool pool(1);
  for (const DType dtype : kFloatDTypes) {
    const auto parts = random_parts(dtype, {5, 7}, 3);
    TestTensor out(dtype, {5, 21});
    ASSERT_TRUE(join_columns(views(parts), out.view(), StreamView(pool)).ok());
    for (int64_t row = 0; row < 5; ++row) {
      for (int64_t i = 0; i < 21; ++i) {
        EXPECT_EQ(out.at(row * 21 + i), parts[static_cast<size_t>(i / 7)].at(row * 7 + i % 7));
      }
    }
  }
}

TEST(PartsTest, RefusesWhatDoesNotFit) {
  ThreadPool pool(1);
  const auto parts = random_parts(DType::kF32, {5, 7}, 2);
  TestTensor narrow(DType::kF32, {5, 6});
  TestTensor other(DType::kBF16, {5, 14});
  EXPECT_FALSE(sum_parts(views(parts), narrow.view(), StreamView(pool)).ok());
  EXPECT_FALSE(sum_parts({}, narrow.view(), StreamView(pool)).ok());
  EXPECT_FALSE(join_columns(views(parts), narrow.view(), StreamView(pool)).ok());
  EXPECT_FALSE(join_columns(views(parts), other.view(), StreamView(pool)).ok());
}

}  // namespace
}  // namespace lamina::kernels
