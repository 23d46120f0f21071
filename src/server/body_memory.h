// BodyMemory: how many bytes the bodies of all requests may hold at once. One body has a limit of
// its own; without this one, many clients that keep to it would exhaust the machine. BodyShare is
// one request's part. Belongs to the io thread.
#pragma once

#include <cstddef>

namespace lamina::server {

struct BodyMemory {
  size_t max_bytes = 0;
  size_t used_bytes = 0;
};

class BodyShare {
 public:
  // `memory` outlives it.
  explicit BodyShare(BodyMemory& memory) : memory_(memory) {}
  ~BodyShare() { memory_.used_bytes -= bytes_; }
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;

  // False, and nothing is taken, where `bytes` more are too many for all requests together.
  [[nodiscard]] bool grow(size_t bytes) {
    if (bytes > memory_.max_bytes - memory_.used_bytes) return false;
    memory_.used_bytes += bytes;
    bytes_ += bytes;
    return true;
  }

 private:
  BodyMemory& memory_;
  size_t bytes_ = 0;
};

}  // namespace lamina::server
