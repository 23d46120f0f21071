#include "model/weights/part_reader.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "base/check.h"
#include "model/weights/decode.h"
#include "model/weights/dequantize.h"

namespace lamina {
namespace {

// Lets the pages of a file go that were read since the last time, as soon as they span a few
// megabytes.
class PageTrail {
 public:
  explicit PageTrail(const MappedFile& file) : file_(file) {}
  PageTrail(const PageTrail&) = delete;
  PageTrail& operator=(const PageTrail&) = delete;
  ~PageTrail() { release(); }

  void read(size_t begin, size_t end) {
    constexpr size_t kSpan = size_t{2} << 20;
    begin_ = begin_ == end_ ? begin : std::min(begin_, begin);
    end_ = std::max(end_, end);
    if (end_ - begin_ >= kSpan) release();
  }

 private:
  void release() {
    file_.release_pages(begin_, end_ - begin_);
    begin_ = end_ = 0;
  }

  const MappedFile& file_;
  size_t begin_ = 0;
  size_t end_ = 0;
};

// A stored tensor as a matrix whose rows stand in Hugging Face's order, decoded a run of elements
// at a time.
class StoredMatrix {
 public:
  explicit StoredMatrix(const StoredTensor& tensor)
      : tensor_(tensor), block_(block_layout(tensor.type)), trail_(*tensor.file) {}

  [[nodiscard]] int64_t width() const { return tensor_.shape.rank() < 2 ? 1 : tensor_.shape[-1]; }
  [[nodiscard]] int64_t num_rows() const { return tensor_.shape.num_elements() / width(); }
  // Row i + 1 follows row i in the file.
  [[nodiscard]] bool in_order() const { return tensor_.interleaved_heads == 0; }
  // Index of the first element of a row in the file.
  [[nodiscard]] int64_t row_begin(int64_t row) const {
    return (in_order() ? row : interleaved_row(row)) * width();
  }

  // Decodes the elements from `first` on.
  void read(int64_t first, std::span<float> out) {
    const auto count = static_cast<int64_t>(out.size());
    const int64_t offset = first % block_.elements;
    if (offset == 0 && count % block_.elements == 0) return read_blocks(first, out);
    const int64_t covered = offset + count;
    blocks_.resize(
        static_cast<size_t>((covered + block_.elements - 1) / block_.elements * block_.elements));
    read_blocks(first - offset, blocks_);
    std::copy_n(blocks_.begin() + offset, count, out.begin());
  }
  // The bytes of `count` elements of a plain type.
  void copy(int64_t first, int64_t count, std::byte* out) {
    const size_t begin = byte_of(first);
    const size_t size_bytes = byte_of(count);
    std::memcpy(out, tensor_.data() + begin, size_bytes);
    trail_.read(tensor_.offset + begin, tensor_.offset + begin + size_bytes);
  }

 private:
  [[nodiscard]] size_t byte_of(int64_t element) const {
    return static_cast<size_t>(element / block_.elements * block_.bytes);
  }

  // Where a row lies, if the rotary halves of its head were interleaved: Hugging Face's row i of a
  // half is row 2i (+ 1 for the second half) there.
  [[nodiscard]] int64_t interleaved_row(int64_t row) const {
    const int64_t head_rows = num_rows() / tensor_.interleaved_heads;
    const int64_t in_head = row % head_rows;
    const int64_t half = in_head / (head_rows / 2);
    return row - in_head + 2 * (in_head % (head_rows / 2)) + half;
  }

  // Whole blocks.
  void read_blocks(int64_t first, std::span<float> out) {
    const size_t begin = byte_of(first);
    const std::byte* stored = tensor_.data() + begin;
    if (tensor_.type == StoredType::kMxfp4) {
      dequantize_mxfp4(stored, tensor_.scales.data() + first / block_.elements, out);
    } else {
      decode_to_f32(tensor_.type, stored, out);
    }
    const size_t end = begin + byte_of(static_cast<int64_t>(out.size()));
    trail_.read(tensor_.offset + begin, tensor_.offset + end);
  }

  const StoredTensor& tensor_;
  BlockLayout block_;
  PageTrail trail_;
  std::vector<float> blocks_;
};

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
  // Row `i` of the part as a row of the (transposed) matrix.
  [[nodiscard]] int64_t picked_row(int64_t i) const {
    return part_.rows.begin + i / part_.rows.count * part_.rows.stride + i % part_.rows.count;
  }
  // Where the elements of a row that the part refers to begin in the file.
  [[nodiscard]] int64_t stored_at(int64_t matrix_row, int64_t column) const {
    return matrix_.row_begin(part_.matrix_begin + matrix_row) + column;
  }

  void read_rows() {
    const bool whole_rows = part_.num_columns == matrix_.width() && matrix_.in_order();
    const int64_t rows_at_once = whole_rows ? part_.rows.count : 1;
    const int64_t num_rows = part_.rows.num_rows();
    for (int64_t i = 0; i < num_rows; i += rows_at_once) {
      read_run(stored_at(picked_row(i), part_.column_begin),
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
    const int64_t left = picked_row(row);
    int64_t end = row + 1;
    while (end < part_.rows.num_rows() && picked_row(end) - left < kWidth) ++end;
    const auto width = static_cast<size_t>(picked_row(end - 1) - left + 1);

    values_.resize(kBand * kPitch);
    for (int64_t i = 0; i < band; ++i) {
      matrix_.read(stored_at(part_.column_begin + column + i, left),
                   std::span(values_).subspan(static_cast<size_t>(i * kPitch), width));
    }
    line_.resize(static_cast<size_t>(band));
    for (int64_t r = row; r < end; ++r) {
      const float* value = values_.data() + (picked_row(r) - left);
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
