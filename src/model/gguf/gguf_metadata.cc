#include "model/gguf/gguf_metadata.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

template <typename T>
T read_as(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

template <typename T>
int64_t read_integer(const std::byte* bytes) {
  return static_cast<int64_t>(read_as<T>(bytes));
}

// A scalar as a 64-bit integer, if it is one and fits.
std::optional<int64_t> as_integer(const GgufValue& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) return *number;
  if (const auto* number = std::get_if<uint64_t>(&value)) {
    if (*number <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(*number);
  }
  return std::nullopt;
}

// Element `idx` of an array of scalars.
GgufValue element(const GgufArray& array, uint64_t idx) {
  return decode_gguf_scalar(array.type, array.bytes.data() + idx * gguf_type_bytes(array.type));
}

// The one integer that all elements equal.
std::optional<int64_t> common_integer(const GgufArray& array) {
  if (gguf_type_bytes(array.type) == 0 || array.count == 0) return std::nullopt;
  const std::optional<int64_t> first = as_integer(element(array, 0));
  for (uint64_t i = 1; i < array.count; ++i) {
    if (as_integer(element(array, i)) != first) return std::nullopt;
  }
  return first;
}

}  // namespace

size_t gguf_type_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;  // a number from a file that is none of ours
}

GgufValue decode_gguf_scalar(GgufType type, const std::byte* bytes) {
  switch (type) {
    case GgufType::kU8:
      return read_integer<uint8_t>(bytes);
    case GgufType::kI8:
      return read_integer<int8_t>(bytes);
    case GgufType::kU16:
      return read_integer<uint16_t>(bytes);
    case GgufType::kI16:
      return read_integer<int16_t>(bytes);
    case GgufType::kU32:
      return read_integer<uint32_t>(bytes);
    case GgufType::kI32:
      return read_integer<int32_t>(bytes);
    case GgufType::kI64:
      return read_integer<int64_t>(bytes);
    case GgufType::kU64:
      return read_as<uint64_t>(bytes);
    case GgufType::kF32:
      return static_cast<double>(read_as<float>(bytes));
    case GgufType::kF64:
      return read_as<double>(bytes);
    case GgufType::kBool:
      return read_as<uint8_t>(bytes) != 0;
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  LAMINA_CHECK(false, "not a scalar");
  return false;
}

bool GgufMetadata::add(std::string_view key, const GgufValue& value) {
  return values_.emplace(key, value).second;
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufArray* GgufMetadata::find_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return nullptr;
  const auto* array = std::get_if<GgufArray>(value);
  if (array == nullptr) refuse(fmt::format("'{}' is not an array", key));
  return array;
}

std::optional<int32_t> GgufMetadata::integer(std::string_view key,
                                             int32_t low,
                                             int32_t high) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(value);
  const std::optional<int64_t> number =
      array != nullptr ? common_integer(*array) : as_integer(*value);
  if (!number) {
    refuse(array != nullptr ? fmt::format("'{}' differs by layer, which is not supported", key)
                            : fmt::format("'{}' is not an integer", key));
  }
  if (*number < low || *number > high) {
    refuse(fmt::format("'{}' is {}, expected {} to {}", key, *number, low, high));
  }
  return static_cast<int32_t>(*number);
}

int32_t GgufMetadata::required_integer(std::string_view key, int32_t low, int32_t high) const {
  const auto value = integer(key, low, high);
  if (!value) refuse(fmt::format("'{}' is missing", key));
  return *value;
}

std::optional<double> GgufMetadata::number(std::string_view key, double low, double high) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* real = std::get_if<double>(value);
  const auto whole = as_integer(*value);
  if (real == nullptr && !whole) refuse(fmt::format("'{}' is not a number", key));
  const double number = real != nullptr ? *real : static_cast<double>(*whole);
  if (!(number >= low && number <= high)) {
    refuse(fmt::format("'{}' is {}, expected {} to {}", key, number, low, high));
  }
  return number;
}

std::optional<bool> GgufMetadata::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* flag = std::get_if<bool>(value);
  if (flag == nullptr) refuse(fmt::format("'{}' is not a boolean", key));
  return *flag;
}

std::optional<std::string> GgufMetadata::text(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* text = std::get_if<std::string_view>(value);
  if (text == nullptr) refuse(fmt::format("'{}' is not a string", key));
  return std::string(*text);
}

std::optional<std::vector<std::string>> GgufMetadata::texts(std::string_view key) const {
  const GgufArray* array = find_array(key);
  if (array == nullptr) return std::nullopt;
  if (array->type != GgufType::kString) refuse(fmt::format("'{}' does not hold strings", key));
  std::vector<std::string> texts;
  texts.reserve(array->count);
  const std::byte* at = array->bytes.data();
  for (uint64_t i = 0; i < array->count; ++i) {
    const auto length = read_as<uint64_t>(at);
    texts.emplace_back(reinterpret_cast<const char*>(at + sizeof(length)), length);
    at += sizeof(length) + length;
  }
  return texts;
}

std::optional<std::vector<float>> GgufMetadata::floats(std::string_view key) const {
  const GgufArray* array = find_array(key);
  if (array == nullptr) return std::nullopt;
  if (array->type != GgufType::kF32) refuse(fmt::format("'{}' does not hold floats", key));
  std::vector<float> values(array->count);
  if (array->count > 0) std::memcpy(values.data(), array->bytes.data(), array->bytes.size());
  return values;
}

std::optional<std::vector<int32_t>> GgufMetadata::integers(std::string_view key) const {
  const GgufArray* array = find_array(key);
  if (array == nullptr) return std::nullopt;
  const bool fits = array->type == GgufType::kI32 || array->type == GgufType::kU32;
  if (!fits) refuse(fmt::format("'{}' does not hold 32-bit integers", key));
  std::vector<int32_t> values(array->count);
  if (array->count > 0) std::memcpy(values.data(), array->bytes.data(), array->bytes.size());
  return values;
}

void GgufMetadata::refuse(const std::string& message) const {
  throw Error(StatusCode::kInvalidArgument, fmt::format("{}: {}", source_, message));
}

}  // namespace lamina
