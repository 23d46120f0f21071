#include "tensor/copy_tensor.h"

#include "base/check.h"

namespace lamina {

Status copy_tensor(const TensorView& to, const TensorView& from, StreamView stream) {
  LAMINA_CHECK(to.shape == from.shape && to.dtype == from.dtype, "tensors of one form");
  const size_t element = dtype_bytes(from.dtype);
  return copy_rows({.to = to.data,
                    .to_stride = static_cast<size_t>(to.row_stride) * element,
                    .from = from.data,
                    .from_stride = static_cast<size_t>(from.row_stride) * element,
                    .row_bytes = from.row_bytes(),
                    .num_rows = static_cast<size_t>(from.shape[0])},
                   stream);
}

}  // namespace lamina
