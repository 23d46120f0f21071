// Metadata of a GGUF file: keys to typed values, read from hostile bytes by gguf_file.h. Values are
// views into the mapped file, which outlives this. Immutable once read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lamina {

// The format's numbers for the types of metadata values.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
// Bytes of a scalar; 0 for strings, arrays and unknown numbers.
size_t gguf_type_bytes(GgufType type);

// Elements of one type, still encoded, and known to lie within the file.
struct GgufArray {
  GgufType type = GgufType::kU8;
  uint64_t count = 0;
  std::span<const std::byte> bytes;
};

// All integers but unsigned 64-bit ones become int64_t.
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray>;
// Decodes a scalar (neither string nor array) of `type` at `bytes`.
GgufValue decode_gguf_scalar(GgufType type, const std::byte* bytes);

class GgufMetadata {
 public:
  explicit GgufMetadata(std::string source) : source_(std::move(source)) {}

  // False if the key stands already.
  bool add(std::string_view key, const GgufValue& value);
  [[nodiscard]] bool has(std::string_view key) const { return find(key) != nullptr; }

  // All give nothing where the key is absent, and throw Error kInvalidArgument, with file and key,
  // for a value of another type or out of range. An array of equal integers counts as the integer:
  // some writers store one value a layer.
  [[nodiscard]] std::optional<int32_t> integer(std::string_view key,
                                               int32_t low,
                                               int32_t high) const;
  [[nodiscard]] int32_t required_integer(std::string_view key, int32_t low, int32_t high) const;
  [[nodiscard]] std::optional<double> number(std::string_view key, double low, double high) const;
  [[nodiscard]] std::optional<bool> boolean(std::string_view key) const;
  [[nodiscard]] std::optional<std::string> text(std::string_view key) const;
  [[nodiscard]] std::optional<std::vector<std::string>> texts(std::string_view key) const;
  [[nodiscard]] std::optional<std::vector<float>> floats(std::string_view key) const;
  [[nodiscard]] std::optional<std::vector<int32_t>> integers(std::string_view key) const;

  [[nodiscard]] const std::string& source() const { return source_; }
  // Throws Error kInvalidArgument: "file: message".
  [[noreturn]] void refuse(const std::string& message) const;

 private:
  [[nodiscard]] const GgufValue* find(std::string_view key) const;
  [[nodiscard]] const GgufArray* find_array(std::string_view key) const;

  std::string source_;
  std::map<std::string_view, GgufValue> values_;
};

}  // namespace lamina
