#include "tensor/packed_matrix.h"

#include <algorithm>
#include <cstring>

namespace lamina {
namespace {

// Where the integer of a column of a block lies, from the first of the block on.
int64_t place_of(PackedFormat format, int64_t row_in_panel, int64_t column) {
  if (format == PackedFormat::kInt4) column %= kBlockColumns / 2;
  return (column / 4 * kPanelRows + row_in_panel) * 4 + column % 4;
}

// Where a row lies, counted through a whole stack.
struct Place {
  int64_t panel = 0;
  int64_t row = 0;  // of the panel

  Place(const PackedMatrix& matrix, int64_t row_of_stack)
      : panel(row_of_stack / matrix.rows * matrix.num_panels() +
              row_of_stack % matrix.rows / kPanelRows),
        row(row_of_stack % matrix.rows % kPanelRows) {}
};

bool is_high_nibble(PackedFormat format, int64_t column) {
  return format == PackedFormat::kInt4 && column >= kBlockColumns / 2;
}

}  // namespace

void PackedMatrix::clear_padding() const {
  const auto used = static_cast<size_t>(num_blocks() * (element_bytes() + scale_bytes()));
  const int64_t end = num_panels() * std::max<int64_t>(num_matrices, 1);
  for (int64_t i = 0; i < end; ++i) {
    const bool is_partial = rows % kPanelRows != 0 && (i + 1) % num_panels() == 0;
    const size_t begin = is_partial ? 0 : used;
    std::memset(panel(i) + begin, 0, panel_bytes() - begin);
  }
}

void PackedMatrix::set_row(int64_t row, std::span<const BFloat16> values) const {
  const Place place(*this, row);
  auto* pairs = reinterpret_cast<BFloat16*>(panel(place.panel)) + 2 * place.row;
  for (size_t k = 0; k < values.size(); k += 2, pairs += 2 * kPanelRows) {
    pairs[0] = values[k];
    pairs[1] = values[k + 1];
  }
}

void PackedMatrix::set_block(int64_t row,
                             int64_t block,
                             std::span<const uint8_t, kBlockColumns> quants,
                             Float16 scale,
                             Float16 minimum) const {
  const auto [panel, in_panel] = Place(*this, row);
  auto* integers = const_cast<uint8_t*>(this->integers(panel)) + block * element_bytes();
  for (int64_t i = 0; i < kBlockColumns; ++i) {
    const uint8_t quant = quants[static_cast<size_t>(i)];
    uint8_t& place = integers[place_of(format, in_panel, i)];
    place = is_high_nibble(format, i) ? static_cast<uint8_t>(place | quant << 4) : quant;
  }
  auto* scales = const_cast<Float16*>(this->scales(panel)) +
                 block * scale_bytes() / static_cast<int64_t>(sizeof(Float16));
  scales[in_panel] = scale;
  if (format == PackedFormat::kInt4) scales[kPanelRows + in_panel] = minimum;
}

void PackedMatrix::get_block(int64_t row,
                             int64_t block,
                             std::span<float, kBlockColumns> values) const {
  const auto [panel, in_panel] = Place(*this, row);
  if (format == PackedFormat::kPairs) {
    const auto* pairs = reinterpret_cast<const BFloat16*>(this->panel(panel)) +
                        block * kBlockColumns * kPanelRows + 2 * in_panel;
    for (size_t i = 0; i < values.size(); i += 2, pairs += 2 * kPanelRows) {
      values[i] = to_f32(pairs[0]);
      values[i + 1] = to_f32(pairs[1]);
    }
    return;
  }
  const uint8_t* integers = this->integers(panel) + block * element_bytes();
  const Float16* scales =
      this->scales(panel) + block * scale_bytes() / static_cast<int64_t>(sizeof(Float16));
  const float scale = to_f32(scales[in_panel]);
  const bool is_int4 = format == PackedFormat::kInt4;
  const float minimum = is_int4 ? to_f32(scales[kPanelRows + in_panel]) : -128.0F * scale;
  for (int64_t i = 0; i < kBlockColumns; ++i) {
    int quant = integers[place_of(format, in_panel, i)];
    if (is_int4) quant = is_high_nibble(format, i) ? quant >> 4 : quant & 0xF;
    values[static_cast<size_t>(i)] = scale * static_cast<float>(quant) + minimum;
  }
}

}  // namespace lamina
