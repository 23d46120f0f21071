// StoredMatrix: a tensor of a model file as a matrix, read piece by piece; the pages of the file
// are let go behind the reader. Used by the readers of this room.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "graph/weight_source.h"
#include "model/weights/decode.h"
#include "model/weights/dequantize.h"
#include "model/weights/stored_tensor.h"

namespace lamina {

// Row `i` of a part as a row of its (transposed) matrix.
inline int64_t picked_row(const WeightPart& part, int64_t i) {
  return part.rows.begin + i / part.rows.count * part.rows.stride + i % part.rows.count;
}

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
  // The stored blocks from element `first` on, which begins one, `count` elements long.
  const std::byte* blocks(int64_t first, int64_t count) {
    const size_t begin = byte_of(first);
    trail_.read(tensor_.offset + begin, tensor_.offset + begin + byte_of(count));
    return tensor_.data() + begin;
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

}  // namespace lamina
