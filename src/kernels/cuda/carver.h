// Carver: cuts a piece of memory into aligned parts, or only counts what they take. Used to lay out
// workspace: once to know its size, once more in the memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/checked_math.h"

namespace lamina::kernels::cuda {

class Carver {
 public:
  // Of null the parts are null.
  explicit Carver(std::byte* memory) : memory_(memory) {}

  template <typename T>
  T* take(int64_t count) {
    std::byte* const part = memory_ == nullptr ? nullptr : memory_ + size_bytes_;
    constexpr size_t kAlignment = 256;
    size_bytes_ += round_up(static_cast<size_t>(count) * sizeof(T), kAlignment);
    return reinterpret_cast<T*>(part);
  }
  [[nodiscard]] size_t size_bytes() const { return size_bytes_; }

 private:
  std::byte* memory_;
  size_t size_bytes_ = 0;
};

}  // namespace lamina::kernels::cuda
