// TensorView: untyped, non-owning, row-major view of device memory: the argument type of every
// operator. The outermost axis may be strided (a slice of columns of a wider matrix); all others
// are contiguous. The memory outlives the view.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace lamina {

struct TensorView {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  int64_t row_stride = 0;  // elements between consecutive indices of axis 0

  TensorView() = default;
  // Contiguous.
  TensorView(void* memory, DType element, const Shape& extents)
      : data(static_cast<std::byte*>(memory)), dtype(element), shape(extents) {
    row_stride = row_elements();
  }

  [[nodiscard]] bool empty() const { return data == nullptr; }
  // Elements of one index of axis 0: the product of the other extents.
  [[nodiscard]] int64_t row_elements() const {
    int64_t count = 1;
    for (int axis = 1; axis < shape.rank(); ++axis) count *= shape[axis];
    return count;
  }
  [[nodiscard]] bool is_contiguous() const { return row_stride == row_elements() || shape[0] <= 1; }
  [[nodiscard]] size_t row_bytes() const {
    return static_cast<size_t>(row_elements()) * dtype_bytes(dtype);
  }
  // Bytes of a contiguous tensor of this shape.
  [[nodiscard]] size_t size_bytes() const {
    return static_cast<size_t>(shape.num_elements()) * dtype_bytes(dtype);
  }

  // Pointer to index `row` of axis 0. CHECKs the element type in debug builds.
  template <typename T>
  [[nodiscard]] T* row(int64_t row_idx) const {
    LAMINA_DCHECK(DTypeOf<T>::kValue == dtype);
    return reinterpret_cast<T*>(data) + row_idx * row_stride;
  }
  template <typename T>
  [[nodiscard]] T* as() const {
    return row<T>(0);
  }

  // Rows [begin, begin + count).
  [[nodiscard]] TensorView rows(int64_t begin, int64_t count) const {
    TensorView part = *this;
    part.data += static_cast<size_t>(begin * row_stride) * dtype_bytes(dtype);
    part.shape = shape.with(0, count);
    return part;
  }
  // Indices [begin, begin + count) of axis 1: heads of [T, H, D], columns of [T, E].
  [[nodiscard]] TensorView columns(int64_t begin, int64_t count) const {
    LAMINA_DCHECK(shape.rank() >= 2);
    TensorView part = *this;
    const int64_t column_elements = row_elements() / shape[1];
    part.data += static_cast<size_t>(begin * column_elements) * dtype_bytes(dtype);
    part.shape = shape.with(1, count);
    return part;
  }
};

}  // namespace lamina
