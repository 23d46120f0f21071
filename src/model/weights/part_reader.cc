#include "model/weights/part_reader.h"

#include <algorithm>
#include <span>
#include <vector>

#include "base/check.h"
#include "model/weights/decode.h"
#include "model/weights/stored_matrix.h"

namespace lamina {
namespace {

class PartReader {
 public:
  PartReader(const StoredTensor& tensor,
             const WeightPart& part,
             DType dtype,
             std::byte* out,
             const std::function<void(size_t)>& wrote)
      : matrix_(tensor),
        part_(part),
        same_bytes_(plain_dtype(tensor.type) == dtype),
        dtype_(dtype),
        out_(out),
        wrote_(wrote) {
    const RowPattern& rows = part.rows;
    const int64_t rows_end = rows.begin + (rows.repeats - 1) * rows.stride + rows.count;
    const int64_t columns_end = part.column_begin + part.num_columns;
    LAMINA_CHECK_LE(part.matrix_begin + part.matrix_rows, matrix_.num_rows());
    LAMINA_CHECK_LE(rows_end, part.transposed ? matrix_.width() : part.matrix_rows);
    LAMINA_CHECK_LE(columns_end, part.transposed ? part.matrix_rows : matrix_.width());
  }

  void read() {
    if (part_.transposed) {
      read_transposed();
    } else {
      read_rows();
    }
    if (unreported_ > 0) wrote_(unreported_);
  }

 private:
  // Where the elements of a row that the part refers to begin in the file.
  [[nodiscard]] int64_t stored_at(int64_t matrix_row, int64_t column) const {
    return matrix_.row_begin(part_.matrix_begin + matrix_row) + column;
  }

  void read_rows() {
    const bool whole_rows = part_.num_columns == matrix_.width() && matrix_.in_order();
    const int64_t rows_at_once = whole_rows ? part_.rows.count : 1;
    const int64_t num_rows = part_.rows.num_rows();
    for (int64_t i = 0; i < num_rows; i += rows_at_once) {
      read_run(stored_at(picked_row(part_, i), part_.column_begin),
               i * part_.num_columns,
               rows_at_once * part_.num_columns);
    }
  }

  // `count` elements that lie together in the file, to element `to` of the result.
  void read_run(int64_t from, int64_t to, int64_t count) {
    constexpr int64_t kChunk = 16 * 1024;  // elements; f32 values stay in the cache
    for (int64_t done = 0; done < count; done += kChunk) {
      const int64_t size = std::min(kChunk, count - done);
      if (same_bytes_) {
        matrix_.copy(from + done, size, out_at(to + done));
      } else {
        values_.resize(static_cast<size_t>(size));
        matrix_.read(from + done, values_);
        encode_from_f32(values_, dtype_, out_at(to + done));
      }
      report(size);
    }
  }

  // Bands of kBand stored rows, in the order of the file; each becomes kBand columns of the result.
  static constexpr int64_t kBand = 64;
  void read_transposed() {
    const int64_t num_rows = part_.rows.num_rows();
    for (int64_t column = 0; column < part_.num_columns; column += kBand) {
      const int64_t band = std::min(kBand, part_.num_columns - column);
      int64_t row = 0;
      while (row < num_rows) row += turn_tile(row, column, band);
    }
  }

  // Rows of the result from `row` on that are near each other in the file, by `band` columns from
  // `column` on. Returns how many rows these are.
  int64_t turn_tile(int64_t row, int64_t column, int64_t band) {
    constexpr int64_t kWidth = 256;
    constexpr int64_t kPitch = kWidth + 16;  // or the lines of a column would share cache sets
    const int64_t left = picked_row(part_, row);
    int64_t end = row + 1;
    while (end < part_.rows.num_rows() && picked_row(part_, end) - left < kWidth) ++end;
    const auto width = static_cast<size_t>(picked_row(part_, end - 1) - left + 1);

    values_.resize(kBand * kPitch);
    for (int64_t i = 0; i < band; ++i) {
      matrix_.read(stored_at(part_.column_begin + column + i, left),
                   std::span(values_).subspan(static_cast<size_t>(i * kPitch), width));
    }
    line_.resize(static_cast<size_t>(band));
    for (int64_t r = row; r < end; ++r) {
      const float* value = values_.data() + (picked_row(part_, r) - left);
      for (int64_t i = 0; i < band; ++i) line_[static_cast<size_t>(i)] = value[i * kPitch];
      encode_from_f32(line_, dtype_, out_at(r * part_.num_columns + column));
    }
    report((end - row) * band);
    return end - row;
  }

  [[nodiscard]] std::byte* out_at(int64_t element) const {
    return out_ + static_cast<size_t>(element) * dtype_bytes(dtype_);
  }

  void report(int64_t elements) {
    constexpr size_t kStride = size_t{1} << 20;
    unreported_ += static_cast<size_t>(elements) * dtype_bytes(dtype_);
    if (unreported_ < kStride) return;
    wrote_(unreported_);
    unreported_ = 0;
  }

  StoredMatrix matrix_;
  const WeightPart& part_;
  bool same_bytes_;
  DType dtype_;
  std::byte* out_;
  const std::function<void(size_t)>& wrote_;
  size_t unreported_ = 0;
  std::vector<float> values_;
  std::vector<float> line_;
};

}  // namespace

void read_part(const StoredTensor& tensor,
               const WeightPart& part,
               DType dtype,
               std::byte* out,
               const std::function<void(size_t)>& wrote) {
  PartReader(tensor, part, dtype, out, wrote).read();
}

}  // namespace lamina
