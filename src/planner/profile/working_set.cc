#include "planner/profile/working_set.h"

#include <algorithm>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/rng.h"
#include "tensor/dtype.h"

namespace lamina::planner {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 19;
constexpr size_t kAlignment = 4096;

Buffer random_piece(DeviceKind kind) {
  Buffer piece(staging_of(kind), kPieceBytes);
  Rng rng(1);
  auto* const values = reinterpret_cast<BFloat16*>(piece.data());
  for (size_t i = 0; i < kPieceBytes / sizeof(BFloat16); ++i) {
    values[i] = to_bf16(0.04F * (rng.next_float() - 0.5F));
  }
  return piece;
}

}  // namespace

Buffer dummy_values(size_t size_bytes, StreamView stream) {
  use_device_of(stream);
  const DeviceKind kind = stream.device().kind;
  const Buffer piece = random_piece(kind);
  Buffer memory(memory_of(kind), size_bytes);
  for (size_t begin = 0; begin < size_bytes; begin += kPieceBytes) {
    const size_t part = std::min(kPieceBytes, size_bytes - begin);
    throw_if_error(copy(memory.data() + begin, piece.data(), part, stream));
  }
  throw_if_error(synchronize(stream));
  return memory;
}

Buffer dummy_values(const Shape& shape, StreamView stream) {
  return dummy_values(static_cast<size_t>(shape.num_elements()) * sizeof(BFloat16), stream);
}

WorkingSet::WorkingSet(size_t size_bytes, StreamView stream)
    : stream_(stream), memory_(dummy_values(size_bytes, stream)) {}

std::byte* WorkingSet::place(size_t run, size_t size_bytes) {
  const size_t stride = ceil_div(size_bytes, kAlignment) * kAlignment;
  if (stride > memory_.size_bytes()) memory_ = dummy_values(stride, stream_);
  return memory_.data() + run % num_places(size_bytes) * stride;
}

size_t WorkingSet::num_places(size_t size_bytes) const {
  const size_t stride = ceil_div(size_bytes, kAlignment) * kAlignment;
  return std::max<size_t>(1, memory_.size_bytes() / stride);
}

}  // namespace lamina::planner
