// Shape: up to four extents, outermost first, held inline so that views are cheap to copy. Plain
// value.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/check.h"

namespace lamina {

class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  // CHECKs the rank and that no extent is negative.
  Shape(std::initializer_list<int64_t> extents);  // NOLINT: Shape s = {2, 3} is the point

  [[nodiscard]] int rank() const { return rank_; }
  // Negative `axis` counts from the end.
  [[nodiscard]] int64_t operator[](int axis) const { return extents_[index(axis)]; }
  [[nodiscard]] int64_t num_elements() const;
  // The shape with `axis` replaced.
  [[nodiscard]] Shape with(int axis, int64_t extent) const;
  // "[2, 3]".
  [[nodiscard]] std::string to_string() const;

  friend bool operator==(const Shape& a, const Shape& b) {
    return a.rank_ == b.rank_ && a.extents_ == b.extents_;
  }

 private:
  [[nodiscard]] size_t index(int axis) const {
    const int positive = axis < 0 ? axis + rank_ : axis;
    LAMINA_DCHECK(positive >= 0 && positive < rank_);
    return static_cast<size_t>(positive);
  }

  int rank_ = 0;
  std::array<int64_t, kMaxRank> extents_{};
};

}  // namespace lamina
