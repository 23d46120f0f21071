// Rows as bytes, for operators that move them without computing: moved in the widest words that
// addresses, strides and sizes allow.
#pragma once

#include <cstdint>

#include "kernels/cuda/element.cuh"

namespace lamina::kernels::cuda {

// Every bit that is set in an address or a size that words have to divide.
class WordAlignment {
 public:
  void add_bytes(int64_t bytes) { bits_ |= static_cast<uint64_t>(bytes); }
  // The beginning of each row of a tensor.
  void add_rows(const TensorView& view) {
    bits_ |= reinterpret_cast<uintptr_t>(view.data);
    if (view.shape[0] > 1) {
      add_bytes(view.row_stride * static_cast<int64_t>(dtype_bytes(view.dtype)));
    }
  }

  // Returns body.operator()<Word>(). Elements have two bytes at least.
  template <typename Body>
  auto with_word(const Body& body) const {
    if (bits_ % sizeof(uint4) == 0) return body.template operator()<uint4>();
    if (bits_ % sizeof(uint32_t) == 0) return body.template operator()<uint32_t>();
    return body.template operator()<uint16_t>();
  }

 private:
  uint64_t bits_ = 0;
};

// Of `elements` of a view.
template <typename Word>
int64_t words_of(int64_t elements, const TensorView& view) {
  return elements * static_cast<int64_t>(dtype_bytes(view.dtype)) /
         static_cast<int64_t>(sizeof(Word));
}

}  // namespace lamina::kernels::cuda
