#include "model/gguf/gguf_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "base/checked_math.h"
#include "base/error.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 17;
constexpr uint64_t kMaxNameBytes = 1024;
// Ten times the largest vocabularies. Bounds the memory that metadata can ask for: a file of holes
// can be of any size.
constexpr size_t kMaxHeadBytes = size_t{128} << 20;

[[noreturn]] void refuse(const std::string& source, const std::string& message) {
  throw Error(StatusCode::kInvalidArgument, fmt::format("{}: {}", source, message));
}

// Walks the head of the file; every read is checked against the end.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& source)
      : bytes_(bytes.first(std::min(bytes.size(), kMaxHeadBytes))), source_(source) {}

  template <typename T>
  T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> take(uint64_t size, std::string_view what) {
    if (size > left()) {
      refuse(source_,
             fmt::format("{} at byte {} ends past the {}",
                         what,
                         position_,
                         bytes_.size() < kMaxHeadBytes
                             ? "end of the file: the file is truncated or lies"
                             : "128 MiB allowed for metadata"));
    }
    const auto part = bytes_.subspan(position_, size);
    position_ += size;
    return part;
  }
  std::string_view text(uint64_t max_bytes, std::string_view what) {
    const auto size = read<uint64_t>(what);
    if (size > max_bytes) refuse(source_, fmt::format("{} has {} bytes", what, size));
    const auto bytes = take(size, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // A count of things of which each takes at least `min_bytes`.
  uint64_t count(uint64_t min_bytes, uint64_t max_count, std::string_view what) {
    const auto count = read<uint64_t>(what);
    if (count > max_count || count > left() / min_bytes) {
      refuse(source_, fmt::format("{} is {}, more than the file's head can hold", what, count));
    }
    return count;
  }

  [[nodiscard]] uint64_t left() const { return bytes_.size() - position_; }
  [[nodiscard]] size_t position() const { return position_; }
  [[nodiscard]] std::span<const std::byte> since(size_t begin) const {
    return bytes_.subspan(begin, position_ - begin);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& source_;
  size_t position_ = 0;
};

struct TensorTypeRow {
  uint32_t id;
  std::string_view name;
  std::optional<StoredType> type;
};
// The format's numbers; those without a StoredType are named so that they can be refused by name.
constexpr TensorTypeRow kTensorTypes[] = {
    {0, "F32", StoredType::kF32},    {1, "F16", StoredType::kF16},
    {2, "Q4_0", StoredType::kQ4_0},  {3, "Q4_1", StoredType::kQ4_1},
    {6, "Q5_0", StoredType::kQ5_0},  {7, "Q5_1", StoredType::kQ5_1},
    {8, "Q8_0", StoredType::kQ8_0},  {9, "Q8_1", std::nullopt},
    {10, "Q2_K", StoredType::kQ2_K}, {11, "Q3_K", StoredType::kQ3_K},
    {12, "Q4_K", StoredType::kQ4_K}, {13, "Q5_K", StoredType::kQ5_K},
    {14, "Q6_K", StoredType::kQ6_K}, {15, "Q8_K", std::nullopt},
    {16, "IQ2_XXS", std::nullopt},   {17, "IQ2_XS", std::nullopt},
    {18, "IQ3_XXS", std::nullopt},   {19, "IQ1_S", std::nullopt},
    {20, "IQ4_NL", std::nullopt},    {21, "IQ3_S", std::nullopt},
    {22, "IQ2_S", std::nullopt},     {23, "IQ4_XS", std::nullopt},
    {24, "I8", std::nullopt},        {25, "I16", std::nullopt},
    {26, "I32", std::nullopt},       {27, "I64", std::nullopt},
    {28, "F64", std::nullopt},       {29, "IQ1_M", std::nullopt},
    {30, "BF16", StoredType::kBF16}, {34, "TQ1_0", std::nullopt},
    {35, "TQ2_0", std::nullopt},     {39, "MXFP4", std::nullopt},
};

StoredType parse_tensor_type(uint32_t id, std::string_view tensor, const std::string& source) {
  for (const TensorTypeRow& row : kTensorTypes) {
    if (row.id != id) continue;
    if (row.type) return *row.type;
    refuse(
        source,
        fmt::format("tensor {} has type {}, which is not supported", printable(tensor), row.name));
  }
  refuse(source, fmt::format("tensor {} has unknown type {}", printable(tensor), id));
}

void check_head(Cursor& cursor, const std::string& source) {
  if (cursor.read<uint32_t>("the magic number") != kMagic) refuse(source, "is not a GGUF file");
  const auto version = cursor.read<uint32_t>("the version");
  if (version == 2 || version == 3) return;
  const bool swapped = version != 0 && (version & 0xFFFFU) == 0;
  refuse(source,
         swapped ? std::string("is a big-endian GGUF file, which is not supported")
                 : fmt::format("has GGUF version {}, but 2 and 3 are supported", version));
}

// What part of which key, for messages.
std::string part_of(std::string_view key, std::string_view part) {
  return fmt::format("key {}: {}", printable(key), part);
}

GgufType read_value_type(Cursor& cursor, std::string_view key, const std::string& source) {
  const auto number = cursor.read<uint32_t>(part_of(key, "a value's type"));
  const auto type = static_cast<GgufType>(number);
  if (gguf_type_bytes(type) == 0 && type != GgufType::kString && type != GgufType::kArray) {
    refuse(source, fmt::format("key {} has unknown value type {}", printable(key), number));
  }
  return type;
}

GgufArray read_array(Cursor& cursor, std::string_view key, const std::string& source) {
  const GgufType type = read_value_type(cursor, key, source);
  if (type == GgufType::kArray) {
    refuse(source,
           fmt::format("key {} holds nested arrays, which are not supported", printable(key)));
  }
  const uint64_t element_bytes =
      type == GgufType::kString ? sizeof(uint64_t) : gguf_type_bytes(type);
  const uint64_t count = cursor.count(element_bytes, UINT64_MAX, part_of(key, "an array's length"));
  const size_t begin = cursor.position();
  if (type != GgufType::kString) {
    cursor.take(count * element_bytes, part_of(key, "an array"));
  } else {
    const std::string what = part_of(key, "a string");
    for (uint64_t i = 0; i < count; ++i) cursor.text(UINT64_MAX, what);
  }
  return {type, count, cursor.since(begin)};
}

GgufValue read_value(Cursor& cursor, std::string_view key, const std::string& source) {
  const GgufType type = read_value_type(cursor, key, source);
  if (type == GgufType::kArray) return read_array(cursor, key, source);
  if (type == GgufType::kString) return cursor.text(UINT64_MAX, part_of(key, "a string"));
  return decode_gguf_scalar(type,
                            cursor.take(gguf_type_bytes(type), part_of(key, "a value")).data());
}

void read_metadata(Cursor& cursor, uint64_t count, GgufMetadata& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = cursor.text(kMaxNameBytes, "a key");
    if (!metadata.add(key, read_value(cursor, key, metadata.source()))) {
      metadata.refuse(fmt::format("key {} stands twice", printable(key)));
    }
  }
}

// Extents as the file has them, innermost first, and the offset from the start of the data.
GgufTensor read_tensor(Cursor& cursor, const std::string& source) {
  GgufTensor tensor;
  tensor.name = cursor.text(kMaxNameBytes, "a tensor's name");
  const std::string what = fmt::format("the entry of tensor {}", printable(tensor.name));
  const auto rank = cursor.read<uint32_t>(what);
  if (rank < 1 || rank > Shape::kMaxRank) {
    refuse(source, fmt::format("tensor {} has {} dimensions", printable(tensor.name), rank));
  }
  std::array<uint64_t, Shape::kMaxRank> extents{};
  for (uint32_t axis = 0; axis < rank; ++axis) {
    extents[rank - 1 - axis] = cursor.read<uint64_t>(what);
  }
  const std::span<const uint64_t> used(extents.data(), rank);
  const auto shape = checked_shape(used);
  tensor.type = parse_tensor_type(cursor.read<uint32_t>(what), tensor.name, source);
  const auto size = shape ? stored_bytes(tensor.type, *shape) : std::nullopt;
  if (!size) {
    refuse(source,
           fmt::format("tensor {} has shape [{}], which its type cannot have",
                       printable(tensor.name),
                       fmt::join(used, ", ")));
  }
  tensor.shape = *shape;
  tensor.size_bytes = *size;
  tensor.offset = cursor.read<uint64_t>(what);
  return tensor;
}

uint64_t read_alignment(const GgufMetadata& metadata) {
  const int32_t alignment = metadata.integer("general.alignment", 1, 1 << 20).value_or(32);
  if ((alignment & (alignment - 1)) != 0) {
    metadata.refuse(fmt::format("'general.alignment' is {}, expected a power of two", alignment));
  }
  return static_cast<uint64_t>(alignment);
}

// Makes offsets count from the start of the file, and checks that tensors lie in it, side by side.
void place_tensors(GgufFile& file, uint64_t head_bytes, uint64_t file_bytes) {
  const uint64_t alignment = read_alignment(file.metadata);
  const uint64_t data_begin = round_up(head_bytes, alignment);
  for (GgufTensor& tensor : file.tensors) {
    const auto begin = checked_add<uint64_t>(data_begin, tensor.offset);
    const auto end = begin ? checked_add<uint64_t>(*begin, tensor.size_bytes) : std::nullopt;
    if (!end || *end > file_bytes) {
      file.metadata.refuse(
          fmt::format("tensor {} ends past the end of the file: the file is truncated or lies",
                      printable(tensor.name)));
    }
    if (tensor.offset % alignment != 0) {
      file.metadata.refuse(fmt::format("tensor {} begins at {}, which is not aligned to {}",
                                       printable(tensor.name),
                                       tensor.offset,
                                       alignment));
    }
    tensor.offset = *begin;
  }
  std::sort(file.tensors.begin(), file.tensors.end(), [](const auto& a, const auto& b) {
    return a.offset < b.offset;
  });
  for (size_t i = 1; i < file.tensors.size(); ++i) {
    const GgufTensor& previous = file.tensors[i - 1];
    if (previous.offset + previous.size_bytes > file.tensors[i].offset) {
      file.metadata.refuse(fmt::format(
          "tensors {} and {} overlap", printable(previous.name), printable(file.tensors[i].name)));
    }
  }
}

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& source) {
  Cursor cursor(bytes, source);
  check_head(cursor, source);
  GgufFile file{GgufMetadata(source), {}};
  // A tensor takes at least a name's length, a rank, one extent, a type and an offset; a key at
  // least its length, a type and one byte.
  const uint64_t num_tensors = cursor.count(32, kMaxTensors, "the number of tensors");
  const uint64_t num_keys = cursor.count(13, kMaxKeys, "the number of keys");
  read_metadata(cursor, num_keys, file.metadata);
  std::set<std::string_view> names;
  file.tensors.reserve(num_tensors);
  for (uint64_t i = 0; i < num_tensors; ++i) {
    file.tensors.push_back(read_tensor(cursor, source));
    const std::string_view name = file.tensors.back().name;
    if (!names.insert(name).second) {
      refuse(source, fmt::format("tensor {} stands twice", printable(name)));
    }
  }
  place_tensors(file, cursor.position(), bytes.size());
  return file;
}

}  // namespace lamina
