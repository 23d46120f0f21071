#include "model/huggingface/mxfp4_pairs.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/rng.h"
#include "model/safetensors/safetensors_file.h"
#include "model/testing/model_test_support.h"
#include "model/weights/loaded_weights.h"

namespace lamina {
namespace {

using test::safetensors_bytes;
using test::TemporaryFolder;

constexpr int64_t kExperts = 2;
constexpr int64_t kRows = 6;
constexpr int64_t kGroups = 3;  // of 32 elements in a row
constexpr size_t kNumScales = kExperts * kRows * kGroups;
constexpr size_t kNumBlockBytes = kNumScales * 16;

std::string random_bytes(size_t size) {
  Rng rng(3);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(rng.next_below(256));
  return bytes;
}

std::vector<StoredTensor> open_file(const TemporaryFolder& folder,
                                    const std::string& name,
                                    const std::string& shape,
                                    const std::string& data) {
  const std::string header = "{\"" + name + R"(":{"dtype":"U8","shape":)" + shape +
                             R"(,"data_offsets":[0,)" + std::to_string(data.size()) + "]}}";
  return open_safetensors(folder.write(name, safetensors_bytes(header, data)));
}

// The pair, each half in a file of its own.
std::vector<StoredTensor> pair(const TemporaryFolder& folder,
                               const std::string& blocks,
                               const std::string& scales,
                               const std::string& scales_shape = "[2,6,3]") {
  std::vector<StoredTensor> tensors = open_file(folder, "w_blocks", "[2,6,3,16]", blocks);
  tensors.push_back(open_file(folder, "w_scales", scales_shape, scales).front());
  join_mxfp4_pairs(tensors);
  return tensors;
}

// From the specification: sign, two bits of exponent with bias 1, one of mantissa.
double e2m1(int bits) {
  const int exponent = (bits >> 1) & 3;
  const double mantissa = (bits & 1) * 0.5;
  const double size = exponent == 0 ? mantissa : std::ldexp(1.0 + mantissa, exponent - 1);
  return (bits & 8) != 0 ? -size : size;
}

double element(const std::string& blocks, const std::string& scales, size_t i) {
  const int pair_of_two = static_cast<unsigned char>(blocks[i / 2]);
  const int scale = static_cast<unsigned char>(scales[i / 32]);
  return std::ldexp(e2m1(i % 2 == 0 ? pair_of_two & 0xF : pair_of_two >> 4), scale - 127);
}

TEST(Mxfp4Pairs, DecodeToTheSpecifiedValues) {
  const TemporaryFolder folder;
  const std::string blocks = random_bytes(kNumBlockBytes);
  std::string scales;  // 2^-127, the smallest, upwards; the last is no number
  for (size_t i = 0; i + 1 < kNumScales; ++i) scales += static_cast<char>(i * 7);
  scales += '\xFF';
  const auto tensors = pair(folder, blocks, scales);
  const Shape shape{kExperts, kRows, kGroups * 32};
  Graph graph;
  graph.add_weight("w", {DType::kF32, RowAxis::kFixed, shape}, whole_tensor("w_blocks", shape));
  const auto store = load_graph_weights(graph, tensors, {});
  const float* values = store->get("w").as<float>();
  const size_t last_block = (kNumScales - 1) * 32;
  for (size_t i = 0; i < last_block; ++i) {
    ASSERT_EQ(values[i], static_cast<float>(element(blocks, scales, i))) << "element " << i;
  }
  for (size_t i = last_block; i < last_block + 32; ++i) EXPECT_TRUE(std::isnan(values[i]));
}

// gpt_oss: the gate in the even rows of each expert, the other half in the odd ones.
TEST(Mxfp4Pairs, AreTakenApartByRowsAndColumns) {
  const TemporaryFolder folder;
  const std::string blocks = random_bytes(kNumBlockBytes);
  std::string scales;
  for (size_t i = 0; i < kNumScales; ++i) scales += static_cast<char>(100 + i);
  const auto tensors = pair(folder, blocks, scales);
  const Shape stored{kExperts, kRows, kGroups * 32};
  WeightSource source;
  for (int64_t expert = 0; expert < kExperts; ++expert) {
    for (int64_t half = 0; half < 2; ++half) {
      WeightSource rows = whole_tensor("w_blocks", stored);
      rows[0].matrix_begin = expert * kRows;
      rows[0].matrix_rows = kRows;
      source = stack(source, take_columns(take_rows(rows, {half, 1, 2, kRows / 2}), 17, 40));
    }
  }
  Graph graph;
  graph.add_weight("w", {DType::kF32, RowAxis::kFixed, Shape{kExperts, kRows, 40}}, source);
  const auto store = load_graph_weights(graph, tensors, {});
  const float* value = store->get("w").as<float>();
  for (int64_t row = 0; row < kExperts * kRows; ++row) {
    const int64_t in_expert = row % kRows;
    const int64_t stored_row =
        row - in_expert + 2 * (in_expert % (kRows / 2)) + in_expert / (kRows / 2);
    for (int64_t column = 17; column < 57; ++column) {
      const auto i = static_cast<size_t>(stored_row * kGroups * 32 + column);
      ASSERT_EQ(*value++, static_cast<float>(element(blocks, scales, i))) << row << " " << column;
    }
  }
}

TEST(Mxfp4Pairs, StayBytesWhereTheHalvesDoNotFit) {
  const TemporaryFolder folder;
  const auto tensors =
      pair(folder, std::string(kNumBlockBytes, 'x'), std::string(kNumScales, 'x'), "[2,3,6]");
  EXPECT_EQ(tensors[0].type, StoredType::kOpaque);
  EXPECT_EQ(tensors[0].encoding, "U8");
  auto alone = open_file(folder, "w_blocks", "[2,6,3,16]", std::string(kNumBlockBytes, 'x'));
  join_mxfp4_pairs(alone);
  EXPECT_EQ(alone[0].type, StoredType::kOpaque);
}

}  // namespace
}  // namespace lamina
