// Scratch: f32 work space of one thread, which grows to the largest size asked for and is then
// reused: no allocation on the step path once sizes have been seen. Confined to one thread.
#pragma once

#include <cstddef>

#include "device/buffer.h"

namespace lamina::kernels::cpu {

class Scratch {
 public:
  // At least `num_floats` floats, aligned to 64 bytes, with whatever was left there. Invalid after
  // the next call.
  float* floats(size_t num_floats) {
    const size_t size_bytes = num_floats * sizeof(float);
    if (buffer_.size_bytes() < size_bytes) buffer_ = Buffer(MemoryKind::kHost, size_bytes);
    return reinterpret_cast<float*>(buffer_.data());
  }

 private:
  Buffer buffer_;
};

}  // namespace lamina::kernels::cpu
