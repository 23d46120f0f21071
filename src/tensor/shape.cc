#include "tensor/shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>

namespace lamina {

Shape::Shape(std::initializer_list<int64_t> extents) : rank_(static_cast<int>(extents.size())) {
  LAMINA_CHECK_LE(rank_, kMaxRank);
  size_t axis = 0;
  for (const int64_t extent : extents) {
    LAMINA_CHECK_GE(extent, 0);
    extents_[axis++] = extent;
  }
}

int64_t Shape::num_elements() const {
  int64_t count = 1;
  for (int axis = 0; axis < rank_; ++axis) count *= extents_[static_cast<size_t>(axis)];
  return count;
}

Shape Shape::with(int axis, int64_t extent) const {
  Shape changed = *this;
  changed.extents_[index(axis)] = extent;
  return changed;
}

std::string Shape::to_string() const {
  return fmt::format("[{}]",
                     fmt::join(std::span(extents_.data(), static_cast<size_t>(rank_)), ", "));
}

}  // namespace lamina
