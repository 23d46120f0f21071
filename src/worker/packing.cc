#include "worker/packing.h"

#include <cstring>

#include "base/check.h"

namespace lamina {

void pack_rows(const TensorView& from, std::span<std::byte> to) {
  LAMINA_CHECK_LE(from.size_bytes(), to.size());
  const size_t row_bytes = from.row_bytes();
  const size_t stride_bytes = static_cast<size_t>(from.row_stride) * dtype_bytes(from.dtype);
  for (int64_t row = 0; row < from.shape[0]; ++row) {
    std::memcpy(to.data() + static_cast<size_t>(row) * row_bytes,
                from.data + static_cast<size_t>(row) * stride_bytes,
                row_bytes);
  }
}

void unpack_rows(std::span<const std::byte> from, const TensorView& to) {
  LAMINA_CHECK_EQ(from.size(), to.size_bytes());
  const size_t row_bytes = to.row_bytes();
  const size_t stride_bytes = static_cast<size_t>(to.row_stride) * dtype_bytes(to.dtype);
  for (int64_t row = 0; row < to.shape[0]; ++row) {
    std::memcpy(to.data + static_cast<size_t>(row) * stride_bytes,
                from.data() + static_cast<size_t>(row) * row_bytes,
                row_bytes);
  }
}

}  // namespace lamina
