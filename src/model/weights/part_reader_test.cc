// Derived weights of every encoding against matrices that go through the same steps as dense
// arrays of values.
#include "model/weights/part_reader.h"

#include <gmock/gmock.h>

#include <array>
#include <cmath>
#include <map>

#include "base/rng.h"
#include "model/testing/model_test_support.h"
#include "model/weights/decode.h"
#include "model/weights/loaded_weights.h"

namespace lamina {
namespace {

using test::TemporaryFolder;

// A source beside the matrix that it stands for.
struct Derived {
  WeightSource source;
  std::vector<std::vector<float>> rows;
};

Derived rows_of(const Derived& from, const RowPattern& pattern) {
  Derived taken{take_rows(from.source, pattern), {}};
  for (int64_t repeat = 0; repeat < pattern.repeats; ++repeat) {
    const int64_t begin = pattern.begin + repeat * pattern.stride;
    for (int64_t row = begin; row < begin + pattern.count; ++row) {
      taken.rows.push_back(from.rows[static_cast<size_t>(row)]);
    }
  }
  return taken;
}

Derived columns_of(const Derived& from, int64_t begin, int64_t count) {
  Derived taken{take_columns(from.source, begin, count), {}};
  for (const auto& row : from.rows) {
    taken.rows.emplace_back(row.begin() + begin, row.begin() + begin + count);
  }
  return taken;
}

Derived stacked(Derived top, const Derived& bottom) {
  top.source = stack(std::move(top.source), bottom.source);
  top.rows.insert(top.rows.end(), bottom.rows.begin(), bottom.rows.end());
  return top;
}

std::vector<std::vector<float>> turned(const std::vector<std::vector<float>>& rows) {
  std::vector<std::vector<float>> result(rows.front().size());
  for (const auto& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) result[column].push_back(row[column]);
  }
  return result;
}

// Tensors of one encoding with random content, each in a file of its own.
class Tensors {
 public:
  // Content of blocks is bytes below `byte_limit`: as f16, numbers.
  explicit Tensors(StoredType type, uint64_t byte_limit = 0x70)
      : type_(type), byte_limit_(byte_limit) {}

  Derived add(const std::string& name, const Shape& shape, int32_t interleaved_heads = 0) {
    StoredTensor tensor{.name = name,
                        .type = type_,
                        .shape = shape,
                        .size_bytes = stored_bytes(type_, shape).value(),
                        .interleaved_heads = interleaved_heads};
    // One byte in front: nothing is aligned.
    tensor.file = std::make_shared<const MappedFile>(
        folder_.write(name, "x" + random_content(tensor.size_bytes)));
    tensor.offset = 1;
    Derived whole{whole_tensor(name, shape), values_of(tensor)};
    if (interleaved_heads > 0) whole.rows = halves_of(whole.rows, interleaved_heads);
    tensors_.push_back(std::move(tensor));
    return whole;
  }
  [[nodiscard]] std::span<const StoredTensor> list() const { return tensors_; }

 private:
  std::string random_content(size_t size_bytes) {
    std::string bytes(size_bytes, '\0');
    if (const auto dtype = plain_dtype(type_)) {
      std::vector<float> values(size_bytes / dtype_bytes(*dtype));
      for (float& value : values) value = rng_.next_float() - 0.5F;
      encode_from_f32(values, *dtype, reinterpret_cast<std::byte*>(bytes.data()));
    } else {
      for (char& byte : bytes) byte = static_cast<char>(rng_.next_below(byte_limit_));
    }
    return bytes;
  }
  [[nodiscard]] std::vector<std::vector<float>> values_of(const StoredTensor& tensor) const {
    std::vector<float> values(static_cast<size_t>(tensor.shape.num_elements()));
    decode_to_f32(type_, tensor.data(), values);
    const int64_t width = tensor.shape.rank() < 2 ? 1 : tensor.shape[-1];
    std::vector<std::vector<float>> rows;
    for (auto row = values.begin(); row < values.end(); row += width) {
      rows.emplace_back(row, row + width);
    }
    return rows;
  }
  // Rows 0, 2, 4, ... of a head are its first half.
  static std::vector<std::vector<float>> halves_of(const std::vector<std::vector<float>>& stored,
                                                   int32_t heads) {
    const size_t head_rows = stored.size() / static_cast<size_t>(heads);
    std::vector<std::vector<float>> rows(stored.size());
    for (size_t i = 0; i < stored.size(); ++i) {
      const size_t in_head = i % head_rows;
      rows[i - in_head + in_head % 2 * (head_rows / 2) + in_head / 2] = stored[i];
    }
    return rows;
  }

  StoredType type_;
  uint64_t byte_limit_;
  Rng rng_{11};
  TemporaryFolder folder_;
  std::vector<StoredTensor> tensors_;
};

void expect_loaded(const Tensors& tensors,
                   const Derived& derived,
                   DType dtype,
                   std::string_view what) {
  const Shape shape{num_rows(derived.source), num_columns(derived.source)};
  Graph graph;
  graph.add_weight("w", {dtype, RowAxis::kFixed, shape}, derived.source);
  const auto store = load_graph_weights(graph, tensors.list(), {});
  const TensorView weight = store->get("w");
  ASSERT_EQ(weight.shape, shape) << what;
  ASSERT_EQ(derived.rows.size(), static_cast<size_t>(shape[0])) << what;
  std::vector<std::byte> expected(weight.row_bytes());
  for (int64_t row = 0; row < shape[0]; ++row) {
    const auto& values = derived.rows[static_cast<size_t>(row)];
    ASSERT_EQ(values.size(), static_cast<size_t>(shape[1])) << what;
    std::vector<float> aligned(values);
    encode_from_f32(aligned, dtype, expected.data());
    const std::byte* actual = weight.data + static_cast<size_t>(row) * weight.row_bytes();
    ASSERT_EQ(std::memcmp(actual, expected.data(), expected.size()), 0) << what << ", row " << row;
  }
}

// One expert of a stack [X, N, K].
Derived expert_of(const Derived& all, int64_t expert, const Shape& stored) {
  const int64_t size = stored[1];
  Derived one = rows_of(all, {expert * size, size});
  one.source = whole_tensor(all.source[0].tensor, stored);
  one.source[0].matrix_begin = expert * size;
  one.source[0].matrix_rows = size;
  one.source[0].rows.count = size;
  return one;
}
Derived turned(const Derived& from) {
  Derived result{from.source, turned(from.rows)};
  WeightPart& part = result.source.at(0);
  part.transposed = true;
  part.rows = {.count = part.num_columns};
  part.num_columns = part.matrix_rows;
  return result;
}

class PartReading : public ::testing::TestWithParam<std::tuple<StoredType, DType>> {
 protected:
  void expect(const Derived& derived, std::string_view what) {
    expect_loaded(tensors_, derived, std::get<1>(GetParam()), what);
  }
  Tensors tensors_{std::get<0>(GetParam())};
};

TEST_P(PartReading, RowsAndColumnsOfAMatrix) {
  const Derived matrix = tensors_.add("m", {70, 512});  // more than one chunk of elements
  expect(matrix, "whole");
  expect(rows_of(matrix, {3, 60}), "consecutive rows");
  expect(rows_of(matrix, {1, 2, 7, 9}), "pattern");
  expect(rows_of(rows_of(matrix, {4, 6, 16, 4}), {2, 15}), "rows of a pattern");
  expect(columns_of(matrix, 256, 256), "columns of whole blocks");
  expect(columns_of(matrix, 250, 100), "columns inside blocks");
  expect(columns_of(rows_of(matrix, {1, 2, 7, 9}), 33, 1), "a column of a pattern");
}

TEST_P(PartReading, TransposedMatrices) {
  const Derived matrix = turned(tensors_.add("m", {150, 512}));  // more than one tile each way
  expect(matrix, "whole");
  expect(rows_of(matrix, {200, 300}), "consecutive rows");
  expect(rows_of(matrix, {1, 1, 2, 256}), "odd rows");
  expect(rows_of(matrix, {5, 20, 150, 3}), "pattern");
  expect(columns_of(matrix, 63, 70), "columns");
  expect(columns_of(rows_of(rows_of(matrix, {0, 100, 300, 2}), {50, 100}), 10, 3), "all of it");
}

TEST_P(PartReading, VectorsHaveOneColumn) {
  const Derived vector = tensors_.add("v", {1024});
  expect(vector, "whole");
  expect(rows_of(vector, {1, 1, 2, 512}), "odd elements");
  expect(stacked(rows_of(vector, {100, 30}), rows_of(vector, {0, 5})), "stacked");
}

TEST_P(PartReading, StacksOfSeveralTensors) {
  const Derived a = tensors_.add("a", {5, 256});
  const Derived b = tensors_.add("b", {9, 256});
  const Derived c = turned(tensors_.add("c", {256, 256}));
  const Derived all = stacked(stacked(a, b), stacked(c, a));
  expect(all, "whole");
  expect(rows_of(all, {3, 4}), "rows of two tensors");
  expect(rows_of(all, {0, 2, 100, 3}), "pattern over all");
  expect(columns_of(all, 100, 28), "columns of all");
}

TEST_P(PartReading, InterleavedHeadsAreHalvesAgain) {
  const Derived q = tensors_.add("q", {48, 256}, 4);
  const Derived k = tensors_.add("k", {24, 256}, 2);
  const Derived v = tensors_.add("v", {24, 256});
  const Derived bias = tensors_.add("bias", {256}, 4);
  expect(q, "whole");
  expect(stacked(stacked(q, k), v), "fused");
  expect(stacked(stacked(rows_of(q, {24, 24}), rows_of(k, {12, 12})), rows_of(v, {12, 12})),
         "a rank's part of fused");
  expect(rows_of(q, {3, 5, 12, 4}), "inside heads");
  expect(columns_of(q, 50, 20), "columns");
  expect(rows_of(bias, {64, 128}), "bias");
}

TEST_P(PartReading, StackedExperts) {
  const Shape stored{3, 128, 256};
  const Derived all = tensors_.add("experts", stored);
  Derived halves;
  Derived turned_experts;
  Derived turned_halves;
  for (int64_t expert = 0; expert < 3; ++expert) {
    const Derived one = expert_of(all, expert, stored);
    const Derived other_way = turned(one);
    for (int64_t odd = 0; odd < 2; ++odd) {
      halves = stacked(halves, rows_of(one, {odd, 1, 2, 64}));
      turned_halves = stacked(turned_halves, rows_of(other_way, {odd, 1, 2, 128}));
    }
    turned_experts = stacked(turned_experts, other_way);
  }
  expect(halves, "even and odd rows of every expert");
  expect(turned_experts, "every expert transposed");
  expect(turned_halves, "even and odd columns of every expert as rows");
  expect(columns_of(rows_of(turned_experts, {64, 64, 256, 3}), 32, 64), "a rank's part of it");
  Derived single;
  for (const std::string name : {"x.0", "x.1", "x.2"}) {
    single = stacked(stacked(single, tensors_.add(name + ".gate", {4, 256})),
                     tensors_.add(name + ".up", {4, 256}));
  }
  expect(single, "from a tensor each");
}

INSTANTIATE_TEST_SUITE_P(
    EncodingsAndDTypes,
    PartReading,
    ::testing::Combine(::testing::Values(StoredType::kF32,
                                         StoredType::kF16,
                                         StoredType::kBF16,
                                         StoredType::kQ8_0,
                                         StoredType::kQ5_1,
                                         StoredType::kQ4_K,
                                         StoredType::kQ6_K),
                       ::testing::Values(DType::kF32, DType::kF16, DType::kBF16)));

// A graph with one weight, used by a product.
Graph product_with(const WeightSource& source) {
  Graph graph;
  const Shape shape{num_rows(source), num_columns(source)};
  const ValueId x = graph.add_input("x", {DType::kBF16, RowAxis::kTokens, {shape[1]}});
  const ValueId w = graph.add_weight("w", {DType::kBF16, RowAxis::kFixed, shape}, source);
  graph.add(OpKind::kLinear, "y", {x, w});
  return graph;
}

class QuantizedReading : public ::testing::TestWithParam<StoredType> {
 protected:
  // How far a value may be from what the file says, given the largest magnitude around it.
  static float tolerance(float largest) {
    switch (GetParam()) {
      case StoredType::kQ8_0:
      case StoredType::kQ4_0:
      case StoredType::kQ4_1:
        return 1e-6F * largest;
      case StoredType::kQ4_K:  // f16 scales and minima; the smallest f16 is 2^-24
        return largest / 1024.0F + 16.0F * 0x1p-25F;
      default:
        return largest / 250.0F + 128.0F * 0x1p-25F;
    }
  }
  void expect(const Derived& derived, PackedFormat format, std::string_view what) {
    const auto store = load_graph_weights(
        product_with(derived.source), tensors_.list(), {.keeps_quantized = true});
    const auto matrix = store->find_packed("w");
    ASSERT_TRUE(matrix) << what;
    ASSERT_EQ(matrix->format, format) << what;
    ASSERT_EQ(matrix->rows, static_cast<int64_t>(derived.rows.size())) << what;
    ASSERT_EQ(store->resident_bytes(), matrix->size_bytes());
    for (int64_t row = 0; row < matrix->rows; ++row) {
      const auto& expected = derived.rows[static_cast<size_t>(row)];
      for (int64_t block = 0; block < matrix->num_blocks(); ++block) {
        std::array<float, kBlockColumns> values{};
        matrix->get_block(row, block, values);
        const auto of_block =
            std::span(expected).subspan(static_cast<size_t>(block * kBlockColumns), kBlockColumns);
        // Q4_K: a scale and its minimum may be larger than what is left of their difference.
        const int64_t span = GetParam() == StoredType::kQ4_K ? 256 : kBlockColumns;
        const int64_t begin = block * kBlockColumns / span * span;
        float largest = 0.0F;
        for (int64_t i = begin; i < std::min(begin + span, matrix->columns); ++i) {
          largest = std::max(largest, std::fabs(expected[static_cast<size_t>(i)]));
        }
        for (size_t i = 0; i < values.size(); ++i) {
          ASSERT_NEAR(values[i], of_block[i], tolerance(largest))
              << what << ", row " << row << " block " << block << " column " << i;
        }
      }
    }
  }
  static PackedFormat own_format() {
    switch (GetParam()) {
      case StoredType::kQ4_0:
      case StoredType::kQ4_1:
      case StoredType::kQ4_K:
        return PackedFormat::kInt4;
      default:
        return PackedFormat::kInt8;
    }
  }
  Tensors tensors_{GetParam(), 0x30};  // scales below 1, as in models
};

TEST_P(QuantizedReading, KeepsTheValues) {
  const Derived matrix = tensors_.add("m", {70, 512});
  expect(matrix, own_format(), "whole");
  expect(rows_of(matrix, {1, 2, 7, 9}), own_format(), "pattern");
  expect(columns_of(matrix, 256, 256), own_format(), "columns of whole blocks");
  const Derived q = tensors_.add("q", {48, 256}, 4);
  const Derived v = tensors_.add("v", {24, 256});
  expect(stacked(q, v), own_format(), "interleaved heads, fused");
}

TEST_P(QuantizedReading, LeavesOthersDecoded) {
  const Derived matrix = tensors_.add("m", {64, 512});
  const auto is_kept = [&](const Graph& graph) {
    return load_graph_weights(graph, tensors_.list(), {.keeps_quantized = true})
        ->find_packed("w")
        .has_value();
  };
  EXPECT_TRUE(is_kept(product_with(matrix.source)));
  EXPECT_FALSE(is_kept(product_with(columns_of(matrix, 16, 256).source))) << "inside blocks";
  EXPECT_FALSE(is_kept(product_with(turned(matrix).source))) << "transposed";
  Graph shared = product_with(matrix.source);
  const ValueId ids = shared.add_input("ids", {DType::kI32, RowAxis::kTokens, {}});
  shared.add(OpKind::kEmbedding, "rows", {shared.node(1).id, ids});
  EXPECT_TRUE(is_kept(shared)) << "an embedding too";
  shared.add(OpKind::kEmbedding, "shard", {shared.node(1).id, ids}, EmbeddingAttrs{});
  EXPECT_FALSE(is_kept(shared)) << "used otherwise too";
  EXPECT_FALSE(
      load_graph_weights(product_with(matrix.source), tensors_.list(), {})->find_packed("w"))
      << "not asked for";
}

TEST(QuantizedReadingOf, ScalesTooLargeForF16IsRefused) {
  Tensors tensors(StoredType::kQ4_K, 0x78);
  const Derived matrix = tensors.add("m", {64, 512});
  EXPECT_THAT(test::error_of([&] {
                load_graph_weights(
                    product_with(matrix.source), tensors.list(), {.keeps_quantized = true});
              }),
              ::testing::HasSubstr("--quantization none"));
}

// Everything that products use and that has whole blocks of columns, whatever it is stored as.
TEST(PairsReading, PacksWhatReadingGives) {
  for (const StoredType type : {StoredType::kF32, StoredType::kBF16, StoredType::kQ8_0}) {
    Tensors tensors(type, 0x30);
    const Derived matrix = tensors.add("m", {300, 512});
    const Derived q = tensors.add("q", {48, 256}, 4);
    const Derived v = tensors.add("v", {24, 256});
    for (const Derived& derived : {matrix,
                                   rows_of(matrix, {1, 2, 7, 9}),
                                   rows_of(matrix, {0, 5, 6, 50}),
                                   columns_of(matrix, 16, 96),
                                   stacked(q, v)}) {
      const Graph graph = product_with(derived.source);
      const auto packed = load_graph_weights(graph, tensors.list(), {.packs_pairs = true});
      const auto matrix_of = packed->find_packed("w");
      ASSERT_TRUE(matrix_of);
      ASSERT_EQ(matrix_of->format, PackedFormat::kPairs);
      const auto plain = load_graph_weights(graph, tensors.list(), {});
      const TensorView rows = plain->get("w");
      ASSERT_EQ(matrix_of->shape(), rows.shape);
      for (int64_t row = 0; row < rows.shape[0]; ++row) {
        for (int64_t block = 0; block < matrix_of->num_blocks(); ++block) {
          std::array<float, kBlockColumns> values{};
          matrix_of->get_block(row, block, values);
          for (size_t i = 0; i < values.size(); ++i) {
            const int64_t column = block * kBlockColumns + static_cast<int64_t>(i);
            ASSERT_EQ(values[i], to_f32(rows.row<BFloat16>(row)[column])) << row << ' ' << column;
          }
        }
      }
    }
  }
}

TEST(PairsReading, LeavesOthersAsTheyAre) {
  Tensors tensors(StoredType::kBF16, 0x30);
  const Derived matrix = tensors.add("m", {64, 512});
  const auto is_packed = [&](const Graph& graph) {
    return load_graph_weights(graph, tensors.list(), {.packs_pairs = true})
        ->find_packed("w")
        .has_value();
  };
  EXPECT_TRUE(is_packed(product_with(matrix.source)));
  EXPECT_FALSE(is_packed(product_with(columns_of(matrix, 0, 80).source))) << "half a block";
  Graph tied = product_with(matrix.source);
  const ValueId ids = tied.add_input("ids", {DType::kI32, RowAxis::kTokens, {}});
  tied.add(OpKind::kEmbedding, "rows", {tied.node(1).id, ids});
  EXPECT_TRUE(is_packed(tied));
  Graph table;
  const ValueId w =
      table.add_weight("w", {DType::kBF16, RowAxis::kFixed, {64, 512}}, matrix.source);
  table.add(
      OpKind::kEmbedding, "rows", {w, table.add_input("ids", {DType::kI32, RowAxis::kTokens, {}})});
  EXPECT_FALSE(is_packed(table)) << "no product";
}

INSTANTIATE_TEST_SUITE_P(Encodings,
                         QuantizedReading,
                         ::testing::Values(StoredType::kQ8_0,
                                           StoredType::kQ4_0,
                                           StoredType::kQ4_1,
                                           StoredType::kQ5_0,
                                           StoredType::kQ5_1,
                                           StoredType::kQ4_K,
                                           StoredType::kQ5_K,
                                           StoredType::kQ6_K));

}  // namespace
}  // namespace lamina
