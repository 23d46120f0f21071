#include "model/weights/loaded_weights.h"

#include <gmock/gmock.h>

#include <cstdio>
#include <fstream>

#include "model/safetensors/safetensors_file.h"
#include "model/testing/model_test_support.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LAMINA_TEST_SANITIZED 1
#endif

namespace lamina {
namespace {

using test::error_of;
using test::raw;
using test::safetensors_bytes;
using test::TemporaryFolder;
using ::testing::HasSubstr;

// "a" [2, 2] F32 at an even multiple of 4, "b" [2] BF16.
std::string small_file(const std::string& padding) {
  const std::string header = R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                             R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[16,20]}})" +
                             padding;
  return safetensors_bytes(header,
                           raw<float>({1.0F, 2.5F, -3.0F, 4.0F}) + raw<uint16_t>({0x3F80, 0x4000}));
}

// A graph that names stored tensors as they are.
Graph graph_of(std::span<const StoredTensor> tensors, DType dtype) {
  Graph graph;
  for (const StoredTensor& tensor : tensors) {
    graph.add_weight(tensor.name, {dtype, RowAxis::kFixed, tensor.shape});
  }
  return graph;
}

std::unique_ptr<WeightStore> load_all(std::span<const StoredTensor> tensors,
                                      DType dtype,
                                      const LoadProgress& progress = nullptr) {
  return load_graph_weights(graph_of(tensors, dtype), tensors, {.progress = progress});
}

std::vector<float> values_of(const TensorView& tensor) {
  std::vector<float> values;
  for (int64_t i = 0; i < tensor.shape.num_elements(); ++i) {
    switch (tensor.dtype) {
      case DType::kF32:
        values.push_back(tensor.as<float>()[i]);
        break;
      case DType::kF16:
        values.push_back(to_f32(tensor.as<Float16>()[i]));
        break;
      case DType::kBF16:
        values.push_back(to_f32(tensor.as<BFloat16>()[i]));
        break;
      default:
        ADD_FAILURE();
    }
  }
  return values;
}

class LoadedWeightsOf : public ::testing::TestWithParam<std::tuple<DType, int>> {};

// The header's length decides how the data is aligned: four paddings meet every case.
TEST_P(LoadedWeightsOf, GiveTheStoredValuesWhateverTheAlignment) {
  const auto [dtype, padding] = GetParam();
  const TemporaryFolder folder;
  const auto path =
      folder.write("w.safetensors", small_file(std::string(static_cast<size_t>(padding), ' ')));
  std::unique_ptr<WeightStore> store;
  {
    const auto tensors = open_safetensors(path);
    store = load_all(tensors, dtype);
  }  // the store keeps its mapping alive
  EXPECT_EQ(store->get("a").dtype, dtype);
  EXPECT_EQ(store->get("a").shape, (Shape{2, 2}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(store->get("a").data) % dtype_bytes(dtype), 0U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(store->get("b").data) % dtype_bytes(dtype), 0U);
  EXPECT_EQ(values_of(store->get("a")), (std::vector<float>{1.0F, 2.5F, -3.0F, 4.0F}));
  EXPECT_EQ(values_of(store->get("b")), (std::vector<float>{1.0F, 2.0F}));
  EXPECT_EQ(store->resident_bytes(), 6 * dtype_bytes(dtype));
}

INSTANTIATE_TEST_SUITE_P(
    DTypesAndAlignments,
    LoadedWeightsOf,
    ::testing::Combine(::testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                       ::testing::Range(0, 4)),
    [](const auto& test_case) {
      return std::string(dtype_name(std::get<0>(test_case.param))) + "Padding" +
             std::to_string(std::get<1>(test_case.param));
    });

TEST(LoadedWeights, UseAlignedRowsInPlace) {
  const TemporaryFolder folder;
  const std::string header = R"({"a":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]}})";
  const std::string padding((8 - header.size() % 8) % 8, ' ');
  const auto tensors = open_safetensors(folder.write(
      "w.safetensors", safetensors_bytes(header + padding, raw<float>({1, 2, 3, 4, 5, 6}))));
  const WeightSource whole = whole_tensor("a", {3, 2});
  Graph graph;
  const auto add = [&](const std::string& name, const WeightSource& source) {
    const Shape shape{num_rows(source), num_columns(source)};
    graph.add_weight(name, {DType::kF32, RowAxis::kFixed, shape}, source);
  };
  add("whole", whole);
  add("rows", take_rows(whole, {1, 2}));
  add("column", take_columns(whole, 1, 1));
  add("strided", take_rows(whole, {0, 1, 2, 2}));
  graph.add_weight("bf16", {DType::kBF16, RowAxis::kFixed, Shape{3, 2}}, whole);
  const auto store = load_graph_weights(graph, tensors, {});
  EXPECT_EQ(store->get("whole").data, tensors[0].data());
  EXPECT_EQ(store->get("rows").data, tensors[0].data() + 8);
  EXPECT_EQ(values_of(store->get("rows")), (std::vector<float>{3, 4, 5, 6}));
  for (const std::string name : {"column", "strided", "bf16"}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(store->get(name).data) % 64, 0U) << name;
  }
  EXPECT_EQ(values_of(store->get("column")), (std::vector<float>{2, 4, 6}));
  EXPECT_EQ(values_of(store->get("strided")), (std::vector<float>{1, 2, 5, 6}));
  EXPECT_EQ(store->resident_bytes(), 24U + 16U + 12U + 16U + 12U);
}

TEST(LoadedWeights, RefuseWhatTheGraphDoesNotFit) {
  const TemporaryFolder folder;
  const std::string header = R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                             R"("i":{"dtype":"I16","shape":[2],"data_offsets":[16,20]}})";
  auto tensors = open_safetensors(
      folder.write("w.safetensors", safetensors_bytes(header, std::string(20, 'x'))));
  const auto refusal = [&](const WeightSource& source) {
    Graph graph;
    const Shape shape{num_rows(source), num_columns(source)};
    graph.add_weight("w", {DType::kF32, RowAxis::kFixed, shape}, source);
    return error_of([&] { load_graph_weights(graph, tensors, {}); });
  };
  EXPECT_THAT(refusal(whole_tensor("a", {4, 1})),
              HasSubstr("tensor 'a' has shape [2, 2], the configuration implies [4, 1]"));
  EXPECT_THAT(refusal(take_rows(whole_tensor("a", {4, 2}), {0, 2})),
              HasSubstr("tensor 'a' has shape [2, 2], the configuration implies [4, 2]"));
  EXPECT_THAT(refusal(stack(whole_tensor("a", {2, 2}), whole_tensor("b", {1, 2}))),
              HasSubstr("the model's files lack tensor 'b' [1, 2]"));
  EXPECT_THAT(refusal(whole_tensor("i", {2})),
              HasSubstr("tensor 'i' has dtype I16, which is not supported"));
  tensors.push_back(tensors.front());
  EXPECT_THAT(refusal(whole_tensor("a", {2, 2})), HasSubstr("'a' stands twice"));
}

TEST(LoadedWeights, AreThoseThatTheGraphNames) {
  const TemporaryFolder folder;
  const auto tensors = open_safetensors(folder.write("w.safetensors", small_file("")));
  const auto store = load_all(std::span(tensors).first(1), DType::kF32);
  EXPECT_EQ(store->resident_bytes(), 16U);
  EXPECT_THAT(error_of([&] { (void)store->get("b"); }, StatusCode::kNotFound), HasSubstr("'b'"));
}

TEST(LoadedWeights, FingerprintTellsNamesShapesAndContentApart) {
  const TemporaryFolder folder;
  const auto fingerprint = [&](const std::string& file) {
    const auto path = folder.write("w.safetensors", file);
    return load_all(open_safetensors(path), DType::kF32)->fingerprint();
  };
  const auto one = [&](const std::string& name, const std::string& shape, float last) {
    return fingerprint(safetensors_bytes(
        "{\"" + name + R"(":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,8]}})",
        raw<float>({1.0F, last})));
  };
  const uint64_t base = one("a", "[2]", 2.0F);
  EXPECT_EQ(one("a", "[2]", 2.0F), base);
  EXPECT_NE(one("b", "[2]", 2.0F), base);
  EXPECT_NE(one("a", "[2,1]", 2.0F), base);
  EXPECT_NE(one("a", "[2]", 2.5F), base);
}

TEST(LoadedWeights, ReportProgressUpToTheWhole) {
  const TemporaryFolder folder;
  const auto tensors = open_safetensors(folder.write("w.safetensors", small_file("")));
  std::vector<uint64_t> done;
  load_all(tensors, DType::kBF16, [&](uint64_t bytes, uint64_t total) {
    EXPECT_EQ(total, 12U);
    done.push_back(bytes);
  });
  ASSERT_FALSE(done.empty());
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), 12U);
}

#ifndef LAMINA_TEST_SANITIZED
int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0;
  int64_t resident = 0;
  statm >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// Four tensors [2048, 2048] of zeros in f32, "0" to "3": 64 MiB.
constexpr int64_t kWidth = 2048;
std::vector<StoredTensor> large_tensors(const TemporaryFolder& folder) {
  constexpr int64_t kBytes = 4 * kWidth * kWidth;
  std::string header = "{";
  for (int64_t i = 0; i < 4; ++i) {
    header += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
              R"(":{"dtype":"F32","shape":[2048,2048],"data_offsets":[)" +
              std::to_string(i * kBytes) + "," + std::to_string((i + 1) * kBytes) + "]}";
  }
  const auto path = folder.write("w.safetensors", safetensors_bytes(header + "}", ""));
  std::filesystem::resize_file(path, std::filesystem::file_size(path) + 4 * kBytes);
  return open_safetensors(path);
}

class LoadedWeightsMemory : public ::testing::TestWithParam<const char*> {
 protected:
  // 32 MiB of bf16 from all of the tensors, or from every second row of one after the other twice.
  static WeightSource source() {
    const Shape stored{kWidth, kWidth};
    const std::string kind = GetParam();
    WeightSource all;
    for (const std::string name : {"0", "1", "2", "3"}) {
      const WeightSource whole =
          kind == "Transposed" ? transposed_tensor(name, stored) : whole_tensor(name, stored);
      if (kind == "EvenAndOddRows") {
        all = stack(all, take_rows(whole, {0, 1, 2, kWidth / 2}));
        all = stack(all, take_rows(whole, {1, 1, 2, kWidth / 2}));
      } else {
        all = stack(all, whole);
      }
    }
    return all;
  }
};

// At no time may the file's pages add to the result.
TEST_P(LoadedWeightsMemory, StaysWithinItsBoundAtEveryMoment) {
  const TemporaryFolder folder;
  auto tensors = large_tensors(folder);
  if (std::string(GetParam()) == "InterleavedHeads") {
    for (StoredTensor& tensor : tensors) tensor.interleaved_heads = 4;
  }
  Graph graph;
  graph.add_weight("w", {DType::kBF16, RowAxis::kFixed, Shape{4, kWidth, kWidth}}, source());
  const int64_t before = resident_bytes();
  int64_t peak = 0;
  const auto store = load_graph_weights(graph, tensors, {.progress = [&](uint64_t, uint64_t) {
                                          peak = std::max(peak, resident_bytes() - before);
                                        }});
  constexpr int64_t kResult = 2 * 4 * kWidth * kWidth;
  EXPECT_EQ(store->resident_bytes(), static_cast<uint64_t>(kResult));
  EXPECT_GT(peak, kResult / 2);
  EXPECT_LE(peak, kResult + kResult * 15 / 100);
  EXPECT_LE(resident_bytes() - before, kResult + kResult * 15 / 100);
}

INSTANTIATE_TEST_SUITE_P(
    Sources,
    LoadedWeightsMemory,
    ::testing::Values("Whole", "Transposed", "EvenAndOddRows", "InterleavedHeads"),
    [](const auto& test_case) { return std::string(test_case.param); });
#endif

}  // namespace
}  // namespace lamina
