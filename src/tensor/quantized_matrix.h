// QuantizedMatrix: a weight matrix in blocks of 32 columns whose elements are small integers with a
// scale, laid out for products in int8: the form in which the quantised weights of GGUF files stay
// in memory. Non-owning view; the memory outlives it.
//
// Rows stand in panels of 16. A panel holds, block after block, the integers of its rows, then,
// block after block, their scales:
//   integers  [blocks][groups][16 rows][4]: four neighbouring columns of each row, so that a vector
//             of 64 bytes has a lane of 32 bits for each row. kInt8: 8 groups of 4 columns, biased
//             by 128. kInt4: 4 groups, whose low nibbles are columns 4g to 4g + 3 and whose high
//             nibbles are columns 16 + 4g to 16 + 4g + 3.
//   scales    [blocks][16 rows] f16; kInt4: [blocks][2][16 rows], the scales and the minima
// Rows past the last of the matrix are zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace lamina {

// kInt8: scale * (q - 128). kInt4: scale * q + minimum, q from 0 to 15.
enum class BlockFormat : uint8_t { kInt8, kInt4 };

inline constexpr int64_t kQuantBlock = 32;  // columns
inline constexpr int64_t kPanelRows = 16;

struct QuantizedMatrix {
  std::byte* data = nullptr;  // size_bytes(), aligned to 64
  BlockFormat format = BlockFormat::kInt8;
  int64_t rows = 0;
  int64_t columns = 0;  // a multiple of kQuantBlock

  [[nodiscard]] int64_t num_blocks() const { return columns / kQuantBlock; }
  [[nodiscard]] int64_t num_panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  // Bytes of the integers of a block of a panel, and of its scales.
  [[nodiscard]] int64_t integer_bytes() const {
    return kPanelRows * kQuantBlock / (format == BlockFormat::kInt4 ? 2 : 1);
  }
  [[nodiscard]] int64_t scale_bytes() const {
    return kPanelRows * static_cast<int64_t>(sizeof(Float16)) *
           (format == BlockFormat::kInt4 ? 2 : 1);
  }
  [[nodiscard]] size_t panel_bytes() const {
    constexpr int64_t kLine = 64;
    const int64_t bytes = num_blocks() * (integer_bytes() + scale_bytes());
    return static_cast<size_t>((bytes + kLine - 1) / kLine * kLine);
  }
  [[nodiscard]] size_t size_bytes() const {
    return static_cast<size_t>(num_panels()) * panel_bytes();
  }
  [[nodiscard]] const uint8_t* integers(int64_t panel) const {
    return reinterpret_cast<const uint8_t*>(data) + static_cast<size_t>(panel) * panel_bytes();
  }
  [[nodiscard]] const Float16* scales(int64_t panel) const {
    return reinterpret_cast<const Float16*>(integers(panel) + num_blocks() * integer_bytes());
  }

  // Writes a block of a row. `quants` as in BlockFormat; `minimum` is of kInt4 alone.
  void set_block(int64_t row,
                 int64_t block,
                 std::span<const uint8_t, kQuantBlock> quants,
                 Float16 scale,
                 Float16 minimum) const;
  // The elements of a block of a row, as f32.
  void get_block(int64_t row, int64_t block, std::span<float, kQuantBlock> values) const;
};

}  // namespace lamina
