#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/tensor_view.h"

namespace lamina {
namespace {

TEST(DType, BFloat16RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0F).bits, 0x3F80);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F808000U)).bits, 0x3F80);  // tie, to even
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F818000U)).bits, 0x3F82);  // tie, to even
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3F808001U)).bits, 0x3F81);
  EXPECT_TRUE(std::isnan(to_f32(to_bf16(std::bit_cast<float>(0x7F800001U)))));
  EXPECT_EQ(to_f32(to_bf16(std::numeric_limits<float>::infinity())),
            std::numeric_limits<float>::infinity());
}

TEST(DType, EveryHalfRoundTrips) {
  for (uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    const float value = to_f32(half);
    if (!std::isnan(value)) {
      ASSERT_EQ(to_f16(value).bits, half.bits);
    }
    const BFloat16 brain{static_cast<uint16_t>(bits)};
    if (!std::isnan(to_f32(brain))) {
      ASSERT_EQ(to_bf16(to_f32(brain)).bits, brain.bits);
    }
  }
}

TEST(DType, NamesRoundTrip) {
  EXPECT_EQ(*parse_dtype("bfloat16"), DType::kBF16);
  EXPECT_FALSE(parse_dtype("fp8").ok());
}

TEST(Shape, CountsAndPrints) {
  const Shape shape = {2, 3, 4};
  EXPECT_EQ(shape.num_elements(), 24);
  EXPECT_EQ(shape[-1], 4);
  EXPECT_EQ(shape.with(0, 5).to_string(), "[5, 3, 4]");
  EXPECT_EQ(Shape().num_elements(), 1);
}

TEST(TensorView, SlicesRowsAndColumns) {
  std::array<float, 24> values{};
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const TensorView view(values.data(), DType::kF32, {2, 3, 4});  // [T, H, D]
  const TensorView head = view.columns(1, 2);
  EXPECT_FALSE(head.is_contiguous());
  EXPECT_EQ(head.shape, Shape({2, 2, 4}));
  EXPECT_EQ(head.row<float>(1)[0], 16.0F);
  EXPECT_EQ(view.rows(1, 1).as<float>()[0], 12.0F);
  EXPECT_EQ(head.size_bytes(), 64U);
}

}  // namespace
}  // namespace lamina
