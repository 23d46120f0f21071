#include "model/weights/packed_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "model/weights/part_reader.h"
#include "model/weights/printable.h"
#include "model/weights/stored_matrix.h"

namespace lamina {
namespace {

bool is_quantized(StoredType type) {
  switch (type) {
    case StoredType::kF32:
    case StoredType::kF16:
    case StoredType::kBF16:
    case StoredType::kMxfp4:
    case StoredType::kOpaque:
      return false;
    default:
      return true;
  }
}

bool has_four_bits(StoredType type) {
  return type == StoredType::kQ4_0 || type == StoredType::kQ4_1 || type == StoredType::kQ4_K;
}

bool has_whole_blocks(const WeightPart& part, StoredType type) {
  const int64_t block = block_layout(type).elements;
  return !part.transposed && part.column_begin % block == 0 && part.num_columns % block == 0;
}

// 32 elements as PackedMatrix has them.
struct Block {
  std::array<uint8_t, kBlockColumns> quants{};
  Float16 scale;
  Float16 minimum;
};

// NaN becomes 0: the scale beside it is one too.
uint8_t rounded(float value, float most) {
  if (!(value > 0.0F)) return 0;
  return static_cast<uint8_t>(std::nearbyint(std::min(value, most)));
}

// The four-bit integers of values that were decoded from them.
Block four_bits(std::span<const float, kBlockColumns> values, float scale, float minimum) {
  Block block{.scale = to_f16(scale), .minimum = to_f16(minimum)};
  if (scale == 0.0F) return block;
  for (size_t i = 0; i < values.size(); ++i) {
    block.quants[i] = rounded((values[i] - minimum) / scale, 15.0F);
  }
  return block;
}

Block rounded_to_int8(std::span<const float, kBlockColumns> values) {
  float largest = 0.0F;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  Block block{.scale = to_f16(largest / 127.0F), .minimum = {}};
  const float scale = to_f32(block.scale);
  for (size_t i = 0; i < values.size(); ++i) {
    const float quant = scale > 0.0F ? values[i] / scale : 0.0F;
    block.quants[i] = rounded(quant + 128.0F, 255.0F);
  }
  return block;
}

float half_at(const std::byte* bytes) {
  Float16 value;
  std::memcpy(&value, bytes, sizeof(value));
  return to_f32(value);
}

// d f16, then 32 signed bytes.
Block q8_0_block(const std::byte* stored) {
  Block block{.scale = to_f16(half_at(stored)), .minimum = {}};
  for (size_t i = 0; i < block.quants.size(); ++i) {
    const auto quant = static_cast<int>(static_cast<int8_t>(stored[sizeof(Float16) + i]));
    block.quants[i] = static_cast<uint8_t>(quant + 128);
  }
  return block;
}

// The scale and minimum of the 32 elements number `i` of a block of Q4_K, six bits each: the first
// four lie in the low bits of scales[i] and scales[4 + i], the others are put together.
std::array<float, 2> q4_k_scales(const std::byte* stored, int64_t i) {
  const auto* scales = reinterpret_cast<const uint8_t*>(stored) + 4;
  const int scale = i < 4 ? scales[i] & 63 : (scales[i + 4] & 0xF) | (scales[i - 4] >> 6) << 4;
  const int minimum = i < 4 ? scales[i + 4] & 63 : scales[i + 4] >> 4 | (scales[i] >> 6) << 4;
  return {half_at(stored) * static_cast<float>(scale),
          -half_at(stored + 2) * static_cast<float>(minimum)};
}

// The 32 elements number `i` of a stored block, whose values are given too.
Block converted(PackedFormat format,
                StoredType type,
                const std::byte* stored,
                int64_t i,
                std::span<const float, kBlockColumns> values) {
  if (format == PackedFormat::kInt8) {
    return type == StoredType::kQ8_0 ? q8_0_block(stored) : rounded_to_int8(values);
  }
  switch (type) {
    case StoredType::kQ4_0:
      return four_bits(values, half_at(stored), -8.0F * half_at(stored));
    case StoredType::kQ4_1:
      return four_bits(values, half_at(stored), half_at(stored + 2));
    default: {
      const auto [scale, minimum] = q4_k_scales(stored, i);
      return four_bits(values, scale, minimum);
    }
  }
}

bool is_finite(Float16 value) {
  return std::isfinite(to_f32(value));
}

// Bytes of `out` that a row takes.
size_t row_bytes(const PackedMatrix& out) {
  return out.matrix_bytes() / static_cast<size_t>(out.rows);
}

[[noreturn]] void refuse_scales(const StoredTensor& tensor) {
  throw Error(StatusCode::kInvalidArgument,
              fmt::format("tensor {}: a scale is no f16 number, so that it cannot stay quantised: "
                          "use --quantization none",
                          printable(tensor.name)));
}

}  // namespace

std::optional<PackedFormat> quantized_format(const WeightSource& source,
                                             std::span<const StoredTensor* const> tensors) {
  PackedFormat format = PackedFormat::kInt4;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const StoredType type = tensors[i]->type;
    if (!is_quantized(type) || !has_whole_blocks(source[i], type)) return std::nullopt;
    if (!has_four_bits(type)) format = PackedFormat::kInt8;
  }
  return format;
}

void read_quantized(const StoredTensor& tensor,
                    const WeightPart& part,
                    const PackedMatrix& out,
                    int64_t first_row,
                    const std::function<void(size_t)>& wrote) {
  StoredMatrix matrix(tensor);
  const BlockLayout layout = block_layout(tensor.type);
  std::vector<float> values(static_cast<size_t>(part.num_columns));
  for (int64_t i = 0; i < part.rows.num_rows(); ++i) {
    const int64_t row = part.matrix_begin + picked_row(part, i);
    const int64_t first = matrix.row_begin(row) + part.column_begin;
    matrix.read(first, values);
    const std::byte* stored = matrix.blocks(first, part.num_columns);
    for (int64_t block = 0; block < out.num_blocks(); ++block) {
      const int64_t column = block * kBlockColumns;
      const auto of_block =
          std::span(values).subspan(static_cast<size_t>(column)).first<kBlockColumns>();
      const std::byte* stored_block = stored + column / layout.elements * layout.bytes;
      const int64_t in_stored = column % layout.elements / kBlockColumns;
      const Block quants = converted(out.format, tensor.type, stored_block, in_stored, of_block);
      if (!is_finite(quants.scale) || !is_finite(quants.minimum)) refuse_scales(tensor);
      out.set_block(first_row + i, block, quants.quants, quants.scale, quants.minimum);
    }
    wrote(row_bytes(out));
  }
}

void read_pairs(const StoredTensor& tensor,
                const WeightPart& part,
                const PackedMatrix& out,
                int64_t first_row,
                const std::function<void(size_t)>& wrote) {
  constexpr int64_t kStripRows =
      256;  // read at a time, so that little memory is needed beside `out`
  const int64_t num_rows = part.rows.num_rows();
  std::vector<BFloat16> strip(static_cast<size_t>(std::min(kStripRows, num_rows) * out.columns));
  for (int64_t begin = 0; begin < num_rows; begin += kStripRows) {
    const int64_t count = std::min(kStripRows, num_rows - begin);
    auto* to = reinterpret_cast<std::byte*>(strip.data());
    for (const WeightPart& rows : take_rows({part}, {.begin = begin, .count = count})) {
      read_part(tensor, rows, DType::kBF16, to, [](size_t /*bytes*/) {});
      to += static_cast<size_t>(rows.rows.num_rows() * out.columns) * sizeof(BFloat16);
    }
    for (int64_t i = 0; i < count; ++i) {
      out.set_row(first_row + begin + i,
                  std::span(strip).subspan(static_cast<size_t>(i * out.columns),
                                           static_cast<size_t>(out.columns)));
    }
    wrote(static_cast<size_t>(count) * row_bytes(out));
  }
}

}  // namespace lamina
