// WeightSource: where the elements of a weight lie in the model's files, when it is not simply the
// stored tensor of its name: rows of a fused projection, a transposed matrix, experts stacked, a
// tensor-parallel rank's share, or several of these on top of each other. Builders and rewrites
// compose sources, the loader (model/weights) reads them. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/shape.h"

namespace lamina {

// `count` rows from `begin` on, the same again `stride` rows further, `repeats` times in all.
struct RowPattern {
  int64_t begin = 0;
  int64_t count = 0;
  int64_t stride = 0;  // >= count where repeats > 1
  int64_t repeats = 1;

  [[nodiscard]] int64_t num_rows() const { return count * repeats; }
  friend bool operator==(const RowPattern&, const RowPattern&) = default;
};

// A rectangle of one stored tensor. The tensor counts as a matrix: its last axis are the columns,
// all others together the rows (a tensor of rank 1 has one column).
struct WeightPart {
  std::string tensor;  // as Hugging Face spells it
  Shape stored;        // what the file must have
  // Consecutive rows of the stored matrix that the rest refers to: one expert of a stack, or all.
  int64_t matrix_begin = 0;
  int64_t matrix_rows = 0;
  bool transposed = false;  // stored as [in, out]: what follows counts in the transposed matrix
  RowPattern rows;
  int64_t column_begin = 0;
  int64_t num_columns = 0;

  friend bool operator==(const WeightPart&, const WeightPart&) = default;
};

// Parts on top of each other, all with the same number of columns. The weight's elements in
// row-major order are these rows; its shape may group them otherwise ([experts, rows, columns]).
using WeightSource = std::vector<WeightPart>;

// The stored tensor as it is.
WeightSource whole_tensor(std::string tensor, const Shape& stored);
// A stored matrix [in, out], turned into [out, in].
WeightSource transposed_tensor(std::string tensor, const Shape& stored);
// Rows [begin, begin + rows) of a stored matrix, turned: one expert of a stack of [in, out].
WeightSource transposed_rows(std::string tensor, const Shape& stored, int64_t begin, int64_t rows);
[[nodiscard]] bool is_whole_tensor(const WeightSource& source);

[[nodiscard]] int64_t num_rows(const WeightSource& source);
[[nodiscard]] int64_t num_columns(const WeightSource& source);
// Rows and columns of what `source` describes. Throw Error kInvalidArgument past its end.
WeightSource take_rows(const WeightSource& source, const RowPattern& rows);
WeightSource take_columns(const WeightSource& source, int64_t begin, int64_t count);
// The one on top of the other. Throws Error kInvalidArgument where the columns differ.
WeightSource stack(WeightSource top, const WeightSource& bottom);

// "q.weight", "qkv.weight[0:64]", "a.weight + b.weight": for dumps.
std::string to_string(const WeightSource& source);

}  // namespace lamina
