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
    store = load_stored_tensors(tensors, dtype, nullptr);
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

TEST(LoadedWeights, UseAlignedBytesInPlace) {
  const TemporaryFolder folder;
  const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  const std::string padding((8 - header.size() % 8) % 8, ' ');
  const auto path =
      folder.write("w.safetensors", safetensors_bytes(header + padding, raw<float>({1.0F})));
  const auto tensors = open_safetensors(path);
  const auto in_place = load_stored_tensors(tensors, DType::kF32, nullptr);
  EXPECT_EQ(in_place->get("a").data, tensors[0].data());
  const auto converted = load_stored_tensors(tensors, DType::kBF16, nullptr);
  EXPECT_NE(converted->get("a").data, tensors[0].data());
}

TEST(LoadedWeights, LetHeadAndEmbeddingStandForEachOther) {
  const TemporaryFolder folder;
  for (const std::string stored : {"lm_head.weight", "model.embed_tokens.weight"}) {
    const std::string header =
        "{\"" + stored + R"(":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}})";
    const auto path = folder.write("w.safetensors", safetensors_bytes(header, raw<float>({1.0F})));
    const auto store = load_stored_tensors(open_safetensors(path), DType::kF32, nullptr);
    EXPECT_TRUE(store->has("lm_head.weight"));
    EXPECT_TRUE(store->has("model.embed_tokens.weight"));
    EXPECT_EQ(store->get("lm_head.weight").data, store->get("model.embed_tokens.weight").data);
    EXPECT_FALSE(store->has("model.norm.weight"));
    EXPECT_THAT(error_of([&] { (void)store->get("model.norm.weight"); }, StatusCode::kNotFound),
                HasSubstr("model.norm.weight"));
  }
}

TEST(LoadedWeights, RefuseOtherDtypesAndTwins) {
  const TemporaryFolder folder;
  auto tensors = open_safetensors(folder.write("w.safetensors", small_file("")));
  EXPECT_THAT(error_of([&] { load_stored_tensors(tensors, DType::kI32, nullptr); }),
              HasSubstr("int32"));
  tensors.push_back(tensors.front());
  EXPECT_THAT(error_of([&] { load_stored_tensors(tensors, DType::kF32, nullptr); }),
              HasSubstr("'a' stands twice"));
}

TEST(LoadedWeights, FingerprintTellsNamesShapesAndContentApart) {
  const TemporaryFolder folder;
  const auto fingerprint = [&](const std::string& file) {
    const auto path = folder.write("w.safetensors", file);
    return load_stored_tensors(open_safetensors(path), DType::kF32, nullptr)->fingerprint();
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
  load_stored_tensors(tensors, DType::kBF16, [&](uint64_t bytes, uint64_t total) {
    EXPECT_EQ(total, 20U);
    done.push_back(bytes);
  });
  ASSERT_FALSE(done.empty());
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), 20U);
}

#ifndef LAMINA_TEST_SANITIZED
int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0;
  int64_t resident = 0;
  statm >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// 64 MiB of f32 become 32 MiB of bf16: at no time may the file's pages add to them.
TEST(LoadedWeights, StayWithinTheirMemoryBoundAtEveryMoment) {
  constexpr int64_t kTensors = 4;
  constexpr int64_t kElements = int64_t{4} << 20;
  const TemporaryFolder folder;
  std::string header = "{";
  for (int64_t i = 0; i < kTensors; ++i) {
    header += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":{"dtype":"F32","shape":[)" +
              std::to_string(kElements) + R"(],"data_offsets":[)" +
              std::to_string(4 * i * kElements) + "," + std::to_string(4 * (i + 1) * kElements) +
              "]}";
  }
  const auto path = folder.write("w.safetensors", safetensors_bytes(header + "}", ""));
  std::filesystem::resize_file(
      path, std::filesystem::file_size(path) + static_cast<uint64_t>(4 * kTensors * kElements));
  const auto tensors = open_safetensors(path);
  const int64_t before = resident_bytes();
  int64_t peak = 0;
  const auto store = load_stored_tensors(tensors, DType::kBF16, [&](uint64_t, uint64_t) {
    peak = std::max(peak, resident_bytes() - before);
  });
  const int64_t model_bytes = 2 * kTensors * kElements;
  EXPECT_EQ(store->resident_bytes(), static_cast<uint64_t>(model_bytes));
  EXPECT_LE(peak, model_bytes + model_bytes * 15 / 100);
  EXPECT_LE(resident_bytes() - before, model_bytes + model_bytes * 15 / 100);
}
#endif

}  // namespace
}  // namespace lamina
