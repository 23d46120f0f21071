// ByteWriter, ByteReader: sequential access to the bytes of one message, little-endian as the wire
// is. Used by the encoders and decoders of this room and by worker/step_codec. The reader is for
// hostile input: it reads every byte at most once, so that a sender who changes shared memory
// meanwhile cannot have a value checked and another one used.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "base/check.h"

namespace lamina::wire {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian");

template <typename T>
concept WireValue = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

class ByteWriter {
 public:
  explicit ByteWriter(std::span<std::byte> bytes) : rest_(bytes) {}

  // CHECKs that there is room: sizes are computed before anything is encoded.
  template <WireValue T>
  void write(const T& value) {
    write_all(std::span<const T>(&value, 1));
  }
  template <WireValue T>
  void write_all(std::span<const T> values) {
    LAMINA_CHECK_LE(values.size_bytes(), rest_.size());
    if (values.empty()) return;  // an empty span may be null
    std::memcpy(rest_.data(), values.data(), values.size_bytes());
    rest_ = rest_.subspan(values.size_bytes());
  }
  [[nodiscard]] size_t remaining() const { return rest_.size(); }

 private:
  std::span<std::byte> rest_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  // False, and nothing is read, if fewer bytes are left.
  template <WireValue T>
  [[nodiscard]] bool read(T& value) {
    return read_all(std::span<T>(&value, 1));
  }
  template <WireValue T>
  [[nodiscard]] bool read_all(std::span<T> values) {
    if (values.size_bytes() > rest_.size()) return false;
    if (values.empty()) return true;
    std::memcpy(values.data(), rest_.data(), values.size_bytes());
    rest_ = rest_.subspan(values.size_bytes());
    return true;
  }
  [[nodiscard]] size_t remaining() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace lamina::wire
