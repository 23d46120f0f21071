#include "model/weights/decode.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/file.h"
#include "model/gguf/gguf_file.h"
#include "support/paths.h"

namespace lamina {
namespace {

const GgufTensor& tensor_named(const GgufFile& file, std::string_view name) {
  for (const GgufTensor& tensor : file.tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::out_of_range(std::string(name));
}

std::vector<float> decoded(const MappedFile& mapping, const GgufTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.shape.num_elements()));
  decode_to_f32(tensor.type, mapping.bytes().data() + tensor.offset, values);
  return values;
}

class Decode : public ::testing::TestWithParam<const char*> {};

// tests/fixtures/gguf/blocks.gguf: random blocks and their values by the Python package `gguf`.
TEST_P(Decode, AgreesWithTheIndependentDecoder) {
  const MappedFile mapping(test::fixture_path("gguf/blocks.gguf"));
  const GgufFile file = parse_gguf(mapping.bytes(), "blocks.gguf");
  const std::string name = GetParam();
  const std::vector<float> values = decoded(mapping, tensor_named(file, name));
  const std::vector<float> expected = decoded(mapping, tensor_named(file, name + ".expected"));
  ASSERT_EQ(values.size(), expected.size());
  float largest = 0.0F;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  ASSERT_GT(largest, 0.0F);
  for (size_t i = 0; i < values.size(); ++i) {
    // The same f32 operations, which a compiler may contract.
    EXPECT_NEAR(values[i], expected[i], 1e-6F * largest) << name << " element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes,
                         Decode,
                         ::testing::Values("F32",
                                           "F16",
                                           "BF16",
                                           "Q8_0",
                                           "Q4_0",
                                           "Q4_1",
                                           "Q5_0",
                                           "Q5_1",
                                           "Q2_K",
                                           "Q3_K",
                                           "Q4_K",
                                           "Q5_K",
                                           "Q6_K"),
                         [](const auto& test_case) { return std::string(test_case.param); });

TEST(Encode, RoundsToNearestEven) {
  const std::vector<float> values = {1.0F, 1.0F + 0x1p-8F, 1.0F + 0x3p-8F, -70000.0F};
  std::vector<uint16_t> out(4);
  encode_from_f32(values, DType::kBF16, reinterpret_cast<std::byte*>(out.data()));
  EXPECT_EQ(out, (std::vector<uint16_t>{0x3F80, 0x3F80, 0x3F82, 0xC789}));
  encode_from_f32(values, DType::kF16, reinterpret_cast<std::byte*>(out.data()));
  EXPECT_EQ(out, (std::vector<uint16_t>{0x3C00, 0x3C04, 0x3C0C, 0xFC00}));
}

// The vector arithmetic against the language's own conversion.
TEST(Decode, AgreesWithTheCompilerOnEveryHalf) {
  std::vector<uint16_t> halves(1 << 16);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> values(halves.size());
  decode_to_f32(StoredType::kF16, reinterpret_cast<const std::byte*>(halves.data()), values);
  for (const uint16_t half : halves) {
    const float expected = to_f32(Float16{half});
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(values[half])) << half;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(values[half]), std::bit_cast<uint32_t>(expected)) << half;
    }
  }
}

// Every half, the points between neighbours, and the floats next to both.
TEST(Encode, AgreesWithTheCompilerAroundEveryHalf) {
  std::vector<float> values = {std::numeric_limits<float>::quiet_NaN(),
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::max(),
                               std::numeric_limits<float>::denorm_min()};
  for (uint16_t bits = 0; bits < 0x7C00; ++bits) {
    const float half = to_f32(Float16{bits});
    const float next = bits == 0x7BFF ? 65536.0F : to_f32(Float16{static_cast<uint16_t>(bits + 1)});
    for (const float value : {half, (half + next) / 2}) {
      for (const float near : {std::nextafter(value, -1.0F), value, std::nextafter(value, 1e9F)}) {
        values.push_back(near);
        values.push_back(-near);
      }
    }
  }
  std::vector<uint16_t> out(values.size());
  encode_from_f32(values, DType::kF16, reinterpret_cast<std::byte*>(out.data()));
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(out[i], to_f16(values[i]).bits) << values[i];
}

TEST(StoredBytes, WantsWholeBlocksInARow) {
  EXPECT_EQ(stored_bytes(StoredType::kQ4_0, Shape{3, 64}), 3U * 2U * 18U);
  EXPECT_EQ(stored_bytes(StoredType::kQ4_0, Shape{64, 3}), std::nullopt);
  EXPECT_EQ(stored_bytes(StoredType::kQ6_K, Shape{2, 128}), std::nullopt);
  EXPECT_EQ(stored_bytes(StoredType::kBF16, Shape{3}), 6U);
}

TEST(CheckedShape, BoundsTheNumberOfElements) {
  const uint64_t huge[] = {uint64_t{1} << 40, uint64_t{1} << 40};
  EXPECT_FALSE(checked_shape(huge));
  const uint64_t negative[] = {UINT64_MAX};
  EXPECT_FALSE(checked_shape(negative));
  const uint64_t zero[] = {3, 0};
  EXPECT_FALSE(checked_shape(zero));
  EXPECT_FALSE(checked_shape({}));
  const uint64_t five[] = {1, 1, 1, 1, 1};
  EXPECT_FALSE(checked_shape(five));
  const uint64_t good[] = {2, 3};
  EXPECT_EQ(checked_shape(good), (Shape{2, 3}));
}

}  // namespace
}  // namespace lamina
