#include <gmock/gmock.h>

#include <string>

#include "base/file.h"
#include "base/rng.h"
#include "model/safetensors/safetensors_file.h"
#include "model/safetensors/safetensors_header.h"
#include "model/testing/model_test_support.h"
#include "support/paths.h"

namespace lamina {
namespace {

using test::bytes_of;
using test::error_of;
using test::safetensors_bytes;
using ::testing::HasSubstr;

std::vector<SafetensorsEntry> parse(const std::string& file) {
  return parse_safetensors(bytes_of(file), "file");
}
std::string refusal(const std::string& header, const std::string& data) {
  return error_of([&] { parse(safetensors_bytes(header, data)); });
}

const char* const kTwoTensors = R"({"__metadata__":{"format":"pt"},)"
                                R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]},)"
                                R"("a":{"data_offsets":[0,12],"shape":[3,1],"dtype":"F32"}})";

TEST(Safetensors, ReadsEntriesInTheOrderOfTheirBytes) {
  const std::string file = safetensors_bytes(kTwoTensors, std::string(16, 'x'));
  const auto entries = parse(file);
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[0].type, StoredType::kF32);
  EXPECT_EQ(entries[0].shape, (Shape{3, 1}));
  EXPECT_EQ(entries[0].offset, file.size() - 16);
  EXPECT_EQ(entries[1].name, "b");
  EXPECT_EQ(entries[1].type, StoredType::kBF16);
  EXPECT_EQ(entries[1].size_bytes, 4U);
}

TEST(Safetensors, KnowsTheSizeOfTypesThatItCannotLoad) {
  const auto entries = parse(safetensors_bytes(
      R"({"ids":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})", std::string(8, 'x')));
  EXPECT_EQ(entries.at(0).type, std::nullopt);
  EXPECT_EQ(entries.at(0).shape, (Shape{1}));
}

TEST(Safetensors, RefusesLyingHeaders) {
  const std::string two(2, 'x');
  const std::string four(4, 'x');
  const auto tensor = [](const std::string& fields) { return "{\"t\":{" + fields + "}}"; };
  const auto shaped = [&](const std::string& shape, const std::string& offsets) {
    return tensor(R"("dtype":"F16","shape":)" + shape + R"(,"data_offsets":)" + offsets);
  };
  EXPECT_THAT(refusal(shaped("[1]", "[0,4]"), four), HasSubstr("takes 2 bytes"));
  EXPECT_THAT(refusal(shaped("[1]", "[2,4]"), four), HasSubstr("leaves a gap"));
  EXPECT_THAT(refusal(shaped("[1]", "[0,2]"), four), HasSubstr("2 bytes after its last tensor"));
  EXPECT_THAT(refusal(shaped("[2]", "[0,4]"), two), HasSubstr("truncated"));
  EXPECT_THAT(refusal(shaped("[1]", "[2,0]"), two), HasSubstr("data_offsets [2, 0]"));
  EXPECT_THAT(refusal(shaped("[1]", "[0]"), two), HasSubstr("data_offsets [0]"));
  EXPECT_THAT(refusal(shaped("[-1]", "[0,2]"), two), HasSubstr("number < 0"));
  EXPECT_THAT(refusal(shaped("[0]", "[0,0]"), ""), HasSubstr("shape [0]"));
  EXPECT_THAT(refusal(shaped("[1.5]", "[0,2]"), two), HasSubstr("fraction"));
  EXPECT_THAT(refusal(shaped("[4294967296,4294967296]", "[0,2]"), two), HasSubstr("shape"));
  EXPECT_THAT(refusal(shaped("[1,1,1,1,1]", "[0,2]"), two), HasSubstr("shape"));
  EXPECT_THAT(refusal(shaped("[1]", "[18446744073709551614,18446744073709551615]"), two),
              HasSubstr("'t'"));
  EXPECT_THAT(refusal(shaped("[1]", "[18446744073709551613,18446744073709551615]"), two),
              HasSubstr("past the end"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F4","shape":[1],"data_offsets":[0,1])"), "x"),
              HasSubstr("dtype 'F4', which is not supported"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F16","shape":[1])"), two), HasSubstr("lacks"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F16","shape":[1],"shape":[1])"), two),
              HasSubstr("'shape' stands twice"));
  EXPECT_THAT(refusal(tensor(R"("dtype":"F16","extra":1)"), two), HasSubstr("'extra'"));
  EXPECT_THAT(refusal(R"({"t":{},"t":{}})", ""), HasSubstr("lacks"));
  EXPECT_THAT(refusal("[]", ""), HasSubstr("a list"));
  EXPECT_THAT(refusal("{} x", ""), HasSubstr("not JSON"));
  EXPECT_THAT(refusal(std::string(100000, '['), ""), HasSubstr("a list"));
  EXPECT_THAT(refusal("{\"\xff\":{}}", ""), HasSubstr("not JSON"));
}

TEST(Safetensors, RefusesOverlapAndTwins) {
  const std::string overlap = R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
                              R"("b":{"dtype":"F16","shape":[2],"data_offsets":[2,6]}})";
  EXPECT_THAT(refusal(overlap, std::string(6, 'x')), HasSubstr("'b' overlaps another"));
  const std::string twins = R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},)"
                            R"("a":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}})";
  EXPECT_THAT(refusal(twins, std::string(4, 'x')), HasSubstr("'a' stands twice"));
}

TEST(Safetensors, RefusesLyingLengths) {
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 31, UINT64_MAX, UINT64_MAX - 7}) {
    std::string file(10, '\0');
    std::memcpy(file.data(), &length, sizeof(length));
    EXPECT_THAT(error_of([&] { parse(file); }), HasSubstr("only 2 follow")) << length;
  }
  const std::string big(40 << 20, ' ');
  EXPECT_THAT(error_of([&] { parse(safetensors_bytes(big, "")); }), HasSubstr("allowed"));
}

TEST(Safetensors, RefusesEveryTruncation) {
  const std::string file = safetensors_bytes(kTwoTensors, std::string(16, 'x'));
  for (size_t size = 0; size < file.size(); ++size) {
    error_of([&] { parse(file.substr(0, size)); });
  }
}

// Any change of one byte is read or refused, and what is read lies in the file.
TEST(Safetensors, SurvivesEveryFlippedByte) {
  const std::string file = safetensors_bytes(kTwoTensors, std::string(16, 'x'));
  Rng rng(7);
  for (size_t i = 0; i < file.size() - 16; ++i) {
    for (int trial = 0; trial < 8; ++trial) {
      std::string changed = file;
      changed[i] = static_cast<char>(rng.next_below(256));
      try {
        for (const SafetensorsEntry& entry : parse(changed)) {
          EXPECT_LE(entry.offset + entry.size_bytes, changed.size());
        }
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
      }
    }
  }
}

TEST(Safetensors, KeepsTheNameOfADtypeThatNoModelUses) {
  const test::TemporaryFolder folder;
  const std::string header = R"({"w":{"dtype":"F8_E4M3","shape":[9],"data_offsets":[0,9]}})";
  const auto tensors =
      open_safetensors(folder.write("w.safetensors", safetensors_bytes(header, "123456789")));
  ASSERT_EQ(tensors.size(), 1U);
  EXPECT_EQ(tensors[0].type, StoredType::kOpaque);
  EXPECT_EQ(tensors[0].encoding, "F8_E4M3");
}

TEST(Safetensors, ReadsFilesOfTheReferenceWriter) {
  const auto tensors = open_safetensors(test::fixture_path("models/llama-gqa/model.safetensors"));
  ASSERT_EQ(tensors.size(), 3U * 9U + 3U);
  for (const StoredTensor& tensor : tensors) {
    EXPECT_EQ(tensor.type, StoredType::kF32) << tensor.name;
    EXPECT_LE(tensor.offset + tensor.size_bytes, tensor.file->bytes().size());
  }
}

}  // namespace
}  // namespace lamina
