// Buffer: move-only owner of memory of any kind, zeroed and aligned to 64 bytes (a cache line and
// an AVX-512 vector) at least. Allocated at start from the plan's sizes and reused; never on the
// step path. GPU memory is of the device that is current when it is allocated, and its bytes are
// not the host's to touch.
#pragma once

#include <cstddef>
#include <span>

#include "device/device.h"

namespace lamina {

inline constexpr size_t kBufferAlignment = 64;

class Buffer {
 public:
  Buffer() = default;
  // Throws Error kResourceExhausted, naming the size, if the memory cannot be had; kUnavailable
  // without a GPU, kUnimplemented for a kind that this build lacks.
  Buffer(MemoryKind kind, size_t size_bytes);
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] size_t size_bytes() const { return size_bytes_; }
  [[nodiscard]] MemoryKind kind() const { return kind_; }
  [[nodiscard]] std::span<std::byte> bytes() const { return {data_, size_bytes_}; }

 private:
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  MemoryKind kind_ = MemoryKind::kHost;
};

}  // namespace lamina
