#include "model/gguf/gguf_file.h"

#include <gmock/gmock.h>

#include <functional>

#include "base/file.h"
#include "base/rng.h"
#include "model/testing/model_test_support.h"
#include "support/paths.h"

namespace lamina {
namespace {

using test::bytes_of;
using test::error_of;
using ::testing::HasSubstr;

// Writes GGUF version 3 by hand, so that every field can lie.
class FileWriter {
 public:
  template <typename T>
  FileWriter& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  FileWriter& text(const std::string& value) {
    put<uint64_t>(value.size());
    bytes_ += value;
    return *this;
  }
  FileWriter& head(uint64_t num_tensors, uint64_t num_keys, uint32_t version = 3) {
    bytes_ += "GGUF";
    return put<uint32_t>(version).put<uint64_t>(num_tensors).put<uint64_t>(num_keys);
  }
  FileWriter& tensor(const std::string& name,
                     const std::vector<uint64_t>& extents,
                     uint32_t type,
                     uint64_t offset) {
    text(name).put<uint32_t>(static_cast<uint32_t>(extents.size()));
    for (const uint64_t extent : extents) put<uint64_t>(extent);
    return put<uint32_t>(type).put<uint64_t>(offset);
  }
  FileWriter& data(size_t size, size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment + size, 'x');
    return *this;
  }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

GgufFile parse(const std::string& bytes) {
  return parse_gguf(bytes_of(bytes), "file");
}
std::string refusal(const FileWriter& writer) {
  return error_of([&] { parse(writer.bytes()); });
}

TEST(GgufFile, ReadsKeysOfEveryTypeInBothVersions) {
  for (const uint32_t version : {2U, 3U}) {
    FileWriter writer;
    writer.head(0, 7, version);
    writer.text("u8").put<uint32_t>(0).put<uint8_t>(200);
    writer.text("i64").put<uint32_t>(11).put<int64_t>(-5);
    writer.text("f32").put<uint32_t>(6).put<float>(1.5F);
    writer.text("bool").put<uint32_t>(7).put<uint8_t>(1);
    writer.text("text").put<uint32_t>(8).text("hello");
    writer.text("texts").put<uint32_t>(9).put<uint32_t>(8).put<uint64_t>(2).text("a").text("");
    writer.text("ints").put<uint32_t>(9).put<uint32_t>(5).put<uint64_t>(2);
    writer.put<int32_t>(7).put<int32_t>(7);
    const std::string bytes = writer.bytes();
    const GgufFile file = parse(bytes);
    EXPECT_EQ(file.metadata.integer("u8", 0, 255), 200);
    EXPECT_EQ(file.metadata.integer("i64", -10, 10), -5);
    EXPECT_EQ(file.metadata.number("f32", 0.0, 2.0), 1.5);
    EXPECT_EQ(file.metadata.number("u8", 0.0, 255.0), 200.0);
    EXPECT_EQ(file.metadata.boolean("bool"), true);
    EXPECT_EQ(file.metadata.text("text"), "hello");
    EXPECT_EQ(file.metadata.texts("texts"), (std::vector<std::string>{"a", ""}));
    EXPECT_EQ(file.metadata.integers("ints"), (std::vector<int32_t>{7, 7}));
    EXPECT_EQ(file.metadata.integer("ints", 0, 10), 7);
    EXPECT_EQ(file.metadata.integer("absent", 0, 10), std::nullopt);
    const GgufMetadata& metadata = file.metadata;
    EXPECT_THAT(error_of([&] { (void)metadata.integer("u8", 0, 100); }), HasSubstr("'u8' is 200"));
    EXPECT_THAT(error_of([&] { (void)metadata.integer("f32", 0, 9); }),
                HasSubstr("not an integer"));
    EXPECT_THAT(error_of([&] { (void)metadata.text("u8"); }), HasSubstr("not a string"));
    EXPECT_THAT(error_of([&] { (void)metadata.boolean("u8"); }), HasSubstr("not a boolean"));
    EXPECT_THAT(error_of([&] { (void)metadata.texts("ints"); }), HasSubstr("strings"));
    EXPECT_THAT(error_of([&] { (void)metadata.floats("ints"); }), HasSubstr("floats"));
    EXPECT_THAT(error_of([&] { (void)metadata.integers("text"); }), HasSubstr("not an array"));
    EXPECT_THAT(error_of([&] { (void)metadata.required_integer("absent", 0, 1); }),
                HasSubstr("'absent' is missing"));
  }
}

TEST(GgufFile, PlacesTensorsAfterTheHead) {
  FileWriter writer;
  writer.head(2, 0).tensor("b", {64, 3}, 2, 64).tensor("a", {5}, 0, 0).data(64 + 108);
  const GgufFile file = parse(writer.bytes());
  ASSERT_EQ(file.tensors.size(), 2U);
  EXPECT_EQ(file.tensors[0].name, "a");
  EXPECT_EQ(file.tensors[1].name, "b");
  EXPECT_EQ(file.tensors[1].shape, (Shape{3, 64}));
  EXPECT_EQ(file.tensors[1].type, StoredType::kQ4_0);
  EXPECT_EQ(file.tensors[1].size_bytes, 3U * 2U * 18U);
  EXPECT_EQ(file.tensors[1].offset, writer.bytes().size() - 108);
}

TEST(GgufFile, RefusesOtherFilesAndVersions) {
  EXPECT_THAT(refusal(FileWriter().put<uint64_t>(7).put<uint64_t>(0)), HasSubstr("not a GGUF"));
  EXPECT_THAT(refusal(FileWriter()), HasSubstr("ends past the end"));
  EXPECT_THAT(refusal(FileWriter().head(0, 0, 1)), HasSubstr("version 1"));
  EXPECT_THAT(refusal(FileWriter().head(0, 0, 4)), HasSubstr("version 4"));
  EXPECT_THAT(refusal(FileWriter().head(0, 0, 0x03000000)), HasSubstr("big-endian"));
}

TEST(GgufFile, RefusesLyingCounts) {
  EXPECT_THAT(refusal(FileWriter().head(1, 0)), HasSubstr("number of tensors is 1"));
  EXPECT_THAT(refusal(FileWriter().head(UINT64_MAX, 0)), HasSubstr("number of tensors"));
  EXPECT_THAT(refusal(FileWriter().head(0, UINT64_MAX)), HasSubstr("number of keys"));
  const auto with_value = [](const std::function<void(FileWriter&)>& value) {
    FileWriter writer;
    writer.head(0, 1).text("key");
    value(writer);
    return refusal(writer.data(64));
  };
  EXPECT_THAT(with_value([](auto& w) { w.template put<uint32_t>(13); }),
              HasSubstr("key 'key' has unknown value type 13"));
  EXPECT_THAT(
      with_value([](auto& w) { w.template put<uint32_t>(8).template put<uint64_t>(UINT64_MAX); }),
      HasSubstr("key 'key': a string"));
  for (const uint64_t count : {uint64_t{1} << 20, uint64_t{1} << 61, UINT64_MAX}) {
    for (const uint32_t type : {0U, 8U, 12U}) {
      EXPECT_THAT(with_value([&](auto& w) {
                    w.template put<uint32_t>(9).template put<uint32_t>(type).put(count);
                  }),
                  HasSubstr("key 'key': an array's length"));
    }
  }
  EXPECT_THAT(with_value([](auto& w) {
                w.template put<uint32_t>(9).template put<uint32_t>(9).template put<uint64_t>(0);
              }),
              HasSubstr("nested"));
  FileWriter long_key;
  long_key.head(0, 1).text(std::string(2000, 'k')).put<uint32_t>(0).put<uint8_t>(0);
  EXPECT_THAT(refusal(long_key), HasSubstr("a key has 2000 bytes"));
  FileWriter cut;
  cut.head(1, 0).text("weight").put<uint32_t>(3).data(20, 1);
  EXPECT_THAT(refusal(cut), HasSubstr("the entry of tensor 'weight' at byte"));
}

// A file of holes costs nothing on disk: its zeros are that many empty strings.
TEST(GgufFile, RefusesAHeadThatWouldNotFitInMemory) {
  FileWriter writer;
  writer.head(0, 1).text("tokenizer.ggml.tokens").put<uint32_t>(9).put<uint32_t>(8);
  writer.put<uint64_t>(uint64_t{1} << 34);
  const test::TemporaryFolder folder;
  const auto path = folder.write("m.gguf", writer.bytes());
  std::filesystem::resize_file(path, uint64_t{1} << 38);
  const MappedFile mapping(path);
  EXPECT_THAT(error_of([&] { parse_gguf(mapping.bytes(), "file"); }), HasSubstr("array's length"));
}

TEST(GgufFile, RefusesTwins) {
  FileWriter keys;
  keys.head(0, 2);
  for (int i = 0; i < 2; ++i) keys.text("key").put<uint32_t>(0).put<uint8_t>(1);
  EXPECT_THAT(refusal(keys), HasSubstr("key 'key' stands twice"));
  FileWriter tensors;
  tensors.head(2, 0).tensor("t", {4}, 0, 0).tensor("t", {4}, 0, 32).data(64);
  EXPECT_THAT(refusal(tensors), HasSubstr("tensor 't' stands twice"));
}

TEST(GgufFile, RefusesTensorsThatDoNotFit) {
  const auto one = [](const std::vector<uint64_t>& extents, uint32_t type, uint64_t offset) {
    return refusal(FileWriter().head(1, 0).tensor("t", extents, type, offset).data(64));
  };
  EXPECT_THAT(one({17}, 0, 0), HasSubstr("'t' ends past the end"));
  EXPECT_THAT(one({16}, 0, 32), HasSubstr("'t' ends past the end"));
  EXPECT_THAT(one({4}, 0, 1), HasSubstr("not aligned"));
  EXPECT_THAT(one({4}, 0, UINT64_MAX - 31), HasSubstr("ends past the end"));
  EXPECT_THAT(one({0}, 0, 0), HasSubstr("shape [0]"));
  EXPECT_THAT(one({uint64_t{1} << 63, 4}, 0, 0), HasSubstr("shape"));
  EXPECT_THAT(one({33}, 2, 0), HasSubstr("shape [33]"));
  EXPECT_THAT(one({}, 0, 0), HasSubstr("0 dimensions"));
  EXPECT_THAT(one({1, 1, 1, 1, 1}, 0, 0), HasSubstr("5 dimensions"));
  EXPECT_THAT(one({4}, 17, 0), HasSubstr("type IQ2_XS, which is not supported"));
  EXPECT_THAT(one({4}, 99, 0), HasSubstr("unknown type 99"));
  FileWriter overlap;
  overlap.head(2, 0).tensor("a", {9}, 0, 0).tensor("b", {4}, 0, 32).data(64);
  EXPECT_THAT(refusal(overlap), HasSubstr("'a' and 'b' overlap"));
}

TEST(GgufFile, HonoursAlignmentAndRefusesOddOnes) {
  const auto aligned = [](uint32_t alignment) {
    FileWriter writer;
    writer.head(1, 1).text("general.alignment").put<uint32_t>(4).put(alignment);
    return writer.tensor("t", {4}, 0, 0).data(16, 256);
  };
  EXPECT_EQ(parse(aligned(256).bytes()).tensors[0].offset, 256U);
  EXPECT_THAT(refusal(aligned(0)), HasSubstr("general.alignment"));
  EXPECT_THAT(refusal(aligned(24)), HasSubstr("power of two"));
  EXPECT_THAT(refusal(aligned(1U << 31)), HasSubstr("general.alignment"));
}

std::string fixture() {
  return read_text_file(test::fixture_path("gguf/llama.gguf"), 1 << 20);
}

TEST(GgufFile, RefusesEveryTruncation) {
  const std::string bytes = fixture();
  // The writer pads the end of the last tensor to 32 bytes: those may go unnoticed.
  for (size_t size = 0; size + 32 <= bytes.size(); ++size) {
    error_of([&] { parse(bytes.substr(0, size)); });
  }
}

// Any change of one byte is read or refused, and what is read lies in the file.
TEST(GgufFile, SurvivesEveryFlippedByte) {
  const std::string bytes = fixture();
  const size_t head = parse(bytes).tensors.front().offset;
  Rng rng(11);
  for (size_t i = 0; i < head; ++i) {
    for (const uint64_t value : {uint64_t{0xFF}, rng.next_below(256)}) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(value);
      try {
        for (const GgufTensor& tensor : parse(changed).tensors) {
          EXPECT_LE(tensor.offset + tensor.size_bytes, changed.size());
        }
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
      }
    }
  }
}

}  // namespace
}  // namespace lamina
