#include "tensor/quantized_matrix.h"

#include <algorithm>

namespace lamina {
namespace {

// Where the integer of a column of a block lies, from the first of the block on.
int64_t place_of(BlockFormat format, int64_t row_in_panel, int64_t column) {
  if (format == BlockFormat::kInt4) column %= kQuantBlock / 2;
  return (column / 4 * kPanelRows + row_in_panel) * 4 + column % 4;
}

bool is_high_nibble(BlockFormat format, int64_t column) {
  return format == BlockFormat::kInt4 && column >= kQuantBlock / 2;
}

}  // namespace

void QuantizedMatrix::set_block(int64_t row,
                                int64_t block,
                                std::span<const uint8_t, kQuantBlock> quants,
                                Float16 scale,
                                Float16 minimum) const {
  const int64_t panel = row / kPanelRows;
  const int64_t in_panel = row % kPanelRows;
  auto* integers = const_cast<uint8_t*>(this->integers(panel)) + block * integer_bytes();
  for (int64_t i = 0; i < kQuantBlock; ++i) {
    const uint8_t quant = quants[static_cast<size_t>(i)];
    uint8_t& place = integers[place_of(format, in_panel, i)];
    place = is_high_nibble(format, i) ? static_cast<uint8_t>(place | quant << 4) : quant;
  }
  auto* scales = const_cast<Float16*>(this->scales(panel)) +
                 block * scale_bytes() / static_cast<int64_t>(sizeof(Float16));
  scales[in_panel] = scale;
  if (format == BlockFormat::kInt4) scales[kPanelRows + in_panel] = minimum;
}

void QuantizedMatrix::get_block(int64_t row,
                                int64_t block,
                                std::span<float, kQuantBlock> values) const {
  const int64_t panel = row / kPanelRows;
  const int64_t in_panel = row % kPanelRows;
  const uint8_t* integers = this->integers(panel) + block * integer_bytes();
  const Float16* scales =
      this->scales(panel) + block * scale_bytes() / static_cast<int64_t>(sizeof(Float16));
  const float scale = to_f32(scales[in_panel]);
  const bool is_int4 = format == BlockFormat::kInt4;
  const float minimum = is_int4 ? to_f32(scales[kPanelRows + in_panel]) : -128.0F * scale;
  for (int64_t i = 0; i < kQuantBlock; ++i) {
    int quant = integers[place_of(format, in_panel, i)];
    if (is_int4) quant = is_high_nibble(format, i) ? quant >> 4 : quant & 0xF;
    values[static_cast<size_t>(i)] = scale * static_cast<float>(quant) + minimum;
  }
}

}  // namespace lamina
