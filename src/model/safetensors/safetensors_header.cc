#include "model/safetensors/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>

#include <nlohmann/json.hpp>

#include "base/checked_math.h"
#include "base/error.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = uint64_t{32} << 20;

[[noreturn]] void refuse(std::string_view source, const std::string& message) {
  throw Error(StatusCode::kInvalidArgument, fmt::format("{}: {}", source, message));
}

struct DTypeRow {
  std::string_view name;
  uint64_t bytes;
  std::optional<StoredType> type;
};
constexpr DTypeRow kDTypes[] = {
    {"F32", 4, StoredType::kF32},
    {"F16", 2, StoredType::kF16},
    {"BF16", 2, StoredType::kBF16},
    {"F64", 8, std::nullopt},
    {"I64", 8, std::nullopt},
    {"I32", 4, std::nullopt},
    {"I16", 2, std::nullopt},
    {"I8", 1, std::nullopt},
    {"U64", 8, std::nullopt},
    {"U32", 4, std::nullopt},
    {"U16", 2, std::nullopt},
    {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},
    {"F8_E4M3", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
};

// What the JSON says of one tensor, before it is believed.
struct RawEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> offsets;
};

// Reads exactly the grammar of a header as events, so that hostile JSON builds no tree:
//   { "__metadata__": {key: string}, name: {"dtype": string, "shape": [n...], "data_offsets": [b,
//   e]} }
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  [[nodiscard]] std::vector<RawEntry>& entries() { return entries_; }
  [[nodiscard]] const std::string& problem() const { return problem_; }

  bool start_object(size_t /*size*/) override {
    if (place_ == Place::kStart) return go(Place::kTensors);
    if (place_ == Place::kTensor && key_ == "__metadata__") return go(Place::kMetadata);
    if (place_ != Place::kTensor) return unexpected("an object");
    entries_.push_back({key_, {}, {}, {}});
    fields_.clear();
    return go(Place::kFields);
  }
  bool key(string_t& name) override {
    key_ = name;
    if (place_ == Place::kMetadata) return true;
    std::set<std::string>& seen = place_ == Place::kFields ? fields_ : names_;
    if (!seen.insert(name).second) return fail(fmt::format("{} stands twice", printable(name)));
    if (place_ == Place::kTensors) return go(Place::kTensor);
    if (name == "dtype" || name == "shape" || name == "data_offsets") return true;
    return unexpected(printable(name));
  }
  bool end_object() override {
    if (place_ == Place::kTensors) return go(Place::kEnd);
    if (place_ == Place::kFields && fields_.size() != 3) {
      return fail(fmt::format("tensor {} lacks dtype, shape or data_offsets", this_tensor()));
    }
    return go(Place::kTensors);
  }
  bool start_array(size_t /*size*/) override {
    if (place_ != Place::kFields || key_ == "dtype") return unexpected("a list");
    return go(Place::kNumbers);
  }
  bool end_array() override { return go(Place::kFields); }
  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kFields || key_ != "dtype") return unexpected("a string");
    entries_.back().dtype = text;
    return true;
  }
  bool number_unsigned(number_unsigned_t number) override {
    if (place_ != Place::kNumbers) return unexpected("a number");
    std::vector<uint64_t>& numbers =
        key_ == "shape" ? entries_.back().shape : entries_.back().offsets;
    constexpr size_t kMaxNumbers = 8;
    if (numbers.size() == kMaxNumbers) return fail(fmt::format("{} is too long", key_));
    numbers.push_back(number);
    return true;
  }
  bool number_integer(number_integer_t /*number*/) override { return unexpected("a number < 0"); }
  bool number_float(number_float_t /*number*/, const string_t& /*text*/) override {
    return unexpected("a fraction");
  }
  bool null() override { return unexpected("null"); }
  bool boolean(bool /*value*/) override { return unexpected("a boolean"); }
  bool binary(binary_t& /*value*/) override { return unexpected("binary data"); }
  bool parse_error(size_t position,
                   const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return fail(fmt::format("is not JSON at byte {}", position));
  }

 private:
  // kTensor: after a tensor's name, before its object.
  enum class Place : uint8_t { kStart, kTensors, kTensor, kMetadata, kFields, kNumbers, kEnd };

  bool go(Place place) {
    place_ = place;
    return true;
  }
  bool fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  bool unexpected(std::string_view what) {
    return fail(fmt::format("has {} where none belongs, near {}", what, printable(key_)));
  }
  [[nodiscard]] std::string this_tensor() const { return printable(entries_.back().name); }

  Place place_ = Place::kStart;
  std::string key_;
  std::set<std::string> names_;
  std::set<std::string> fields_;
  std::vector<RawEntry> entries_;
  std::string problem_;
};

std::string_view header_text(std::span<const std::byte> file, std::string_view source) {
  if (file.size() < kLengthBytes) refuse(source, "is too short for a safetensors file");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  const uint64_t rest = file.size() - kLengthBytes;
  if (length > rest) {
    refuse(source,
           fmt::format("says that its header has {} bytes, but only {} follow", length, rest));
  }
  if (length > kMaxHeaderBytes) {
    refuse(
        source,
        fmt::format("has a header of {} bytes, more than the {} allowed", length, kMaxHeaderBytes));
  }
  return {reinterpret_cast<const char*>(file.data()) + kLengthBytes, static_cast<size_t>(length)};
}

// Shape, dtype and byte range of one tensor, made to agree. `data_begin` is where offsets count
// from.
SafetensorsEntry believe(const RawEntry& raw, uint64_t data_begin, std::string_view source) {
  const std::string name = printable(raw.name);
  const auto* const row = std::find_if(
      std::begin(kDTypes), std::end(kDTypes), [&](const auto& r) { return r.name == raw.dtype; });
  if (row == std::end(kDTypes)) {
    refuse(
        source,
        fmt::format("tensor {} has dtype {}, which is not supported", name, printable(raw.dtype)));
  }
  // A scalar is a list of one.
  const std::vector<uint64_t> extents = raw.shape.empty() ? std::vector<uint64_t>{1} : raw.shape;
  const auto shape = checked_shape(extents);
  if (!shape) {
    refuse(
        source,
        fmt::format(
            "tensor {} has shape [{}], which is not supported", name, fmt::join(raw.shape, ", ")));
  }
  if (raw.offsets.size() != 2 || raw.offsets[0] > raw.offsets[1]) {
    refuse(source,
           fmt::format("tensor {} has data_offsets [{}]", name, fmt::join(raw.offsets, ", ")));
  }
  const uint64_t size = raw.offsets[1] - raw.offsets[0];
  const uint64_t implied = static_cast<uint64_t>(shape->num_elements()) * row->bytes;
  if (size != implied) {
    refuse(source,
           fmt::format("tensor {} {} {} takes {} bytes, but its data_offsets span {}",
                       name,
                       raw.dtype,
                       shape->to_string(),
                       implied,
                       size));
  }
  const auto offset = checked_add(data_begin, raw.offsets[0]);
  if (!offset) refuse(source, fmt::format("tensor {} lies past the end of the file", name));
  return {raw.name, raw.dtype, row->type, *shape, *offset, size};
}

// Tensors sorted by offset must tile [data_begin, file size).
void check_cover(const std::vector<SafetensorsEntry>& entries,
                 uint64_t data_begin,
                 uint64_t file_size,
                 std::string_view source) {
  uint64_t end = data_begin;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.offset != end) {
      refuse(source,
             fmt::format("tensor {} {} (data_offsets begin at {}, expected {})",
                         printable(entry.name),
                         entry.offset < end ? "overlaps another" : "leaves a gap before it",
                         entry.offset - data_begin,
                         end - data_begin));
    }
    const auto next = checked_add<uint64_t>(end, entry.size_bytes);
    if (!next || *next > file_size) {
      refuse(source,
             fmt::format("tensor {} ends past the end of the file: the file is truncated",
                         printable(entry.name)));
    }
    end = *next;
  }
  if (end != file_size) {
    refuse(source, fmt::format("has {} bytes after its last tensor", file_size - end));
  }
}

}  // namespace

std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file,
                                                std::string_view source) {
  const std::string_view text = header_text(file, source);
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(text, &reader)) {
    refuse(source, fmt::format("header {}", reader.problem()));
  }
  const uint64_t data_begin = kLengthBytes + text.size();
  std::vector<SafetensorsEntry> entries;
  entries.reserve(reader.entries().size());
  for (const RawEntry& raw : reader.entries()) entries.push_back(believe(raw, data_begin, source));
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.offset < b.offset;
  });
  check_cover(entries, data_begin, file.size(), source);
  return entries;
}

}  // namespace lamina
