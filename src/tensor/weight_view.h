// WeightView: a weight as the operators that multiply by it take it: rows as they lie in files, or
// panels. Non-owning, as what it holds.
#pragma once

#include "tensor/packed_matrix.h"
#include "tensor/tensor_view.h"

namespace lamina {

struct WeightView {
  TensorView tensor;    // empty where the weight is packed
  PackedMatrix packed;  // without data where it is not

  WeightView() = default;
  // Implicit: each is a weight.
  WeightView(const TensorView& view) : tensor(view) {}        // NOLINT(google-explicit-constructor)
  WeightView(const PackedMatrix& matrix) : packed(matrix) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool is_packed() const { return packed.data != nullptr; }
  [[nodiscard]] Shape shape() const { return is_packed() ? packed.shape() : tensor.shape; }
  // [N, K] of a stack [X, N, K].
  [[nodiscard]] WeightView matrix(int64_t index) const {
    if (is_packed()) return packed.matrix(index);
    const TensorView one = tensor.rows(index, 1);
    return TensorView(one.data, one.dtype, {tensor.shape[1], tensor.shape[2]});
  }
};

}  // namespace lamina
