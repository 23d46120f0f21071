// PackedMatrix: weight matrices laid out for products: the form in which the weights of a CPU's
// products lie in memory. Non-owning view; the memory outlives it.
//
// Rows stand in panels of 16, so that a vector of 64 bytes has a lane of 32 bits for each row:
// neighbouring columns of it, two bf16 or four int8. Columns come in blocks of 32:
//   kPairs  bf16 [blocks][16 pairs of columns][16 rows][2]
//   kInt8   scale * (q - 128): integers [blocks][8 groups][16 rows][4], then, of the whole panel,
//           scales f16 [blocks][16 rows]
//   kInt4   scale * q + minimum, q from 0 to 15: integers [blocks][4 groups][16 rows][4], whose low
//           nibbles are columns 4g to 4g + 3 and whose high nibbles are columns 16 + 4g to
//           16 + 4g + 3; then scales f16 [blocks][2][16 rows], the scales and the minima
// Rows past the last of a matrix are zeros. A stack has its matrices one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace lamina {

enum class PackedFormat : uint8_t { kPairs, kInt8, kInt4 };

inline constexpr int64_t kBlockColumns = 32;
inline constexpr int64_t kPanelRows = 16;

[[nodiscard]] constexpr bool is_quantized(PackedFormat format) {
  return format != PackedFormat::kPairs;
}

struct PackedMatrix {
  std::byte* data = nullptr;  // size_bytes(), aligned to 64
  PackedFormat format = PackedFormat::kPairs;
  int64_t rows = 0;          // of one matrix
  int64_t columns = 0;       // a multiple of kBlockColumns
  int64_t num_matrices = 0;  // of a stack [num_matrices, rows, columns]; 0: no stack

  // As the tensor's would be.
  [[nodiscard]] Shape shape() const {
    return num_matrices == 0 ? Shape{rows, columns} : Shape{num_matrices, rows, columns};
  }
  // Of a stack.
  [[nodiscard]] PackedMatrix matrix(int64_t index) const {
    return {data + static_cast<size_t>(index) * matrix_bytes(), format, rows, columns};
  }

  [[nodiscard]] int64_t num_blocks() const { return columns / kBlockColumns; }
  [[nodiscard]] int64_t num_panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  // Bytes of the elements of a block of a panel, and of its scales.
  [[nodiscard]] int64_t element_bytes() const {
    const int64_t bytes = kPanelRows * kBlockColumns;
    if (format == PackedFormat::kPairs) return bytes * 2;
    return format == PackedFormat::kInt8 ? bytes : bytes / 2;
  }
  [[nodiscard]] int64_t scale_bytes() const {
    const int64_t bytes = kPanelRows * static_cast<int64_t>(sizeof(Float16));
    if (format == PackedFormat::kPairs) return 0;
    return format == PackedFormat::kInt8 ? bytes : bytes * 2;
  }
  [[nodiscard]] size_t panel_bytes() const {
    constexpr int64_t kLine = 64;
    const int64_t bytes = num_blocks() * (element_bytes() + scale_bytes());
    return static_cast<size_t>((bytes + kLine - 1) / kLine * kLine);
  }
  [[nodiscard]] size_t matrix_bytes() const {
    return static_cast<size_t>(num_panels()) * panel_bytes();
  }
  [[nodiscard]] size_t size_bytes() const {
    return matrix_bytes() * static_cast<size_t>(num_matrices == 0 ? 1 : num_matrices);
  }

  // Of one matrix.
  [[nodiscard]] std::byte* panel(int64_t index) const {
    return data + static_cast<size_t>(index) * panel_bytes();
  }
  [[nodiscard]] const uint8_t* integers(int64_t index) const {
    return reinterpret_cast<const uint8_t*>(panel(index));
  }
  [[nodiscard]] const Float16* scales(int64_t index) const {
    return reinterpret_cast<const Float16*>(panel(index) + num_blocks() * element_bytes());
  }

  // Writes zeros where no row lies: rows past the last of a matrix, what fills panels up to lines.
  void clear_padding() const;
  // Rows are counted through a whole stack here.
  // Writes a row of kPairs, which has `columns` elements.
  void set_row(int64_t row, std::span<const BFloat16> values) const;
  // Writes a block of a row of a quantised format. `minimum` is of kInt4 alone.
  void set_block(int64_t row,
                 int64_t block,
                 std::span<const uint8_t, kBlockColumns> quants,
                 Float16 scale,
                 Float16 minimum) const;
  // The elements of a block of a row, as f32.
  void get_block(int64_t row, int64_t block, std::span<float, kBlockColumns> values) const;
};

}  // namespace lamina
