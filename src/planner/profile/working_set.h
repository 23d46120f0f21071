// WorkingSet: memory that measurements take turns in, as a model's weights and cache do: what does
// not fit caches there does not fit them here. Confined to one thread.
#pragma once

#include <cstddef>

#include "device/buffer.h"
#include "device/stream.h"
#include "tensor/shape.h"

namespace lamina::planner {

// Small numbers of bf16, in memory of the stream's device: zeros are computed with faster, and
// memory that nobody has written to costs nothing to read. Throws what Buffer throws.
Buffer dummy_values(size_t size_bytes, StreamView stream);
// The same of a tensor's shape.
Buffer dummy_values(const Shape& shape, StreamView stream);

class WorkingSet {
 public:
  // Throws what Buffer throws.
  WorkingSet(size_t size_bytes, StreamView stream);

  // Where run `run` finds so many bytes: one place after another, as many as there are.
  std::byte* place(size_t run, size_t size_bytes);
  // Places of that size, one at least.
  [[nodiscard]] size_t num_places(size_t size_bytes) const;

 private:
  StreamView stream_;
  Buffer memory_;
};

}  // namespace lamina::planner
