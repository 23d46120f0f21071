#include "graph/weight_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace lamina {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw Error(StatusCode::kInvalidArgument, what);
}

int64_t columns_of(const Shape& stored) {
  return stored.rank() < 2 ? 1 : stored[-1];
}

WeightSource matrix_of(std::string tensor, const Shape& stored, bool transposed) {
  const int64_t columns = columns_of(stored);
  const int64_t rows = stored.num_elements() / columns;
  WeightPart part{.tensor = std::move(tensor),
                  .stored = stored,
                  .matrix_rows = rows,
                  .transposed = transposed,
                  .rows = {.count = transposed ? columns : rows},
                  .num_columns = transposed ? rows : columns};
  return {std::move(part)};
}

// Rows [begin, begin + count) of what `pattern` picks, in up to three patterns: the end of a first
// period, whole periods, the beginning of a last one.
std::vector<RowPattern> sub_patterns(const RowPattern& pattern, int64_t begin, int64_t count) {
  std::vector<RowPattern> found;
  const int64_t end = begin + count;
  const auto row_at = [&](int64_t i) {
    return pattern.begin + i / pattern.count * pattern.stride + i % pattern.count;
  };
  while (begin < end) {
    const int64_t left_in_period = pattern.count - begin % pattern.count;
    const bool whole_periods = left_in_period == pattern.count && end - begin >= pattern.count;
    const int64_t rows = whole_periods ? pattern.count : std::min(left_in_period, end - begin);
    const int64_t repeats = whole_periods ? (end - begin) / pattern.count : 1;
    found.push_back({.begin = row_at(begin),
                     .count = rows,
                     .stride = repeats > 1 ? pattern.stride : 0,
                     .repeats = repeats});
    begin += rows * repeats;
  }
  return found;
}

// Consecutive rows.
void append_rows(const WeightSource& source, int64_t begin, int64_t count, WeightSource& out) {
  for (const WeightPart& part : source) {
    const int64_t size = part.rows.num_rows();
    const int64_t from = std::clamp<int64_t>(begin, 0, size);
    const int64_t to = std::clamp<int64_t>(begin + count, 0, size);
    for (const RowPattern& rows : sub_patterns(part.rows, from, to - from)) {
      out.push_back(part);
      out.back().rows = rows;
    }
    begin -= size;
  }
}

std::string to_string(const WeightPart& part) {
  std::string text = part.tensor;
  const int64_t columns = columns_of(part.stored);
  if (part.matrix_rows * columns != part.stored.num_elements()) {
    text += fmt::format("({}:{})", part.matrix_begin, part.matrix_begin + part.matrix_rows);
  }
  if (part.transposed) text += "^T";
  const int64_t all_rows = part.transposed ? columns : part.matrix_rows;
  const int64_t all_columns = part.transposed ? part.matrix_rows : columns;
  const RowPattern& rows = part.rows;
  std::string picked;
  if (rows.num_rows() != all_rows)
    picked = fmt::format("{}:{}", rows.begin, rows.begin + rows.count);
  if (rows.repeats > 1) picked += fmt::format(" every {} x{}", rows.stride, rows.repeats);
  if (part.num_columns != all_columns) {
    picked += fmt::format(", {}:{}", part.column_begin, part.column_begin + part.num_columns);
  }
  return picked.empty() ? text : fmt::format("{}[{}]", text, picked);
}

}  // namespace

WeightSource whole_tensor(std::string tensor, const Shape& stored) {
  return matrix_of(std::move(tensor), stored, false);
}

WeightSource transposed_tensor(std::string tensor, const Shape& stored) {
  if (stored.rank() != 2) {
    fail(fmt::format("{} {} cannot be transposed", tensor, stored.to_string()));
  }
  return matrix_of(std::move(tensor), stored, true);
}

WeightSource transposed_rows(std::string tensor, const Shape& stored, int64_t begin, int64_t rows) {
  WeightSource source = matrix_of(std::move(tensor), stored, true);
  WeightPart& part = source.front();
  if (begin < 0 || rows <= 0 || begin + rows > part.matrix_rows) {
    fail(fmt::format("rows [{}, {}) of {}", begin, begin + rows, to_string(source)));
  }
  part.matrix_begin = begin;
  part.matrix_rows = part.num_columns = rows;
  return source;
}

bool is_whole_tensor(const WeightSource& source) {
  return source.size() == 1 && source == whole_tensor(source[0].tensor, source[0].stored);
}

int64_t num_rows(const WeightSource& source) {
  int64_t rows = 0;
  for (const WeightPart& part : source) rows += part.rows.num_rows();
  return rows;
}

int64_t num_columns(const WeightSource& source) {
  return source.empty() ? 0 : source.front().num_columns;
}

WeightSource take_rows(const WeightSource& source, const RowPattern& rows) {
  const int64_t last_begin = rows.begin + (rows.repeats - 1) * rows.stride;
  const bool fits = rows.begin >= 0 && rows.count > 0 && rows.repeats > 0 &&
                    (rows.repeats == 1 || rows.stride >= rows.count) &&
                    last_begin + rows.count <= num_rows(source);
  if (!fits) {
    fail(fmt::format("{} rows from {}, {} times every {}, of {}: {}",
                     rows.count,
                     rows.begin,
                     rows.repeats,
                     rows.stride,
                     num_rows(source),
                     to_string(source)));
  }
  // A pattern over a whole matrix stays one part.
  if (source.size() == 1 && source[0].rows.repeats == 1) {
    WeightSource taken = source;
    taken[0].rows = rows;
    taken[0].rows.begin += source[0].rows.begin;
    if (rows.repeats == 1) taken[0].rows.stride = 0;
    return taken;
  }
  WeightSource taken;
  for (int64_t i = 0; i < rows.repeats; ++i) {
    append_rows(source, rows.begin + i * rows.stride, rows.count, taken);
  }
  return taken;
}

WeightSource take_columns(const WeightSource& source, int64_t begin, int64_t count) {
  if (begin < 0 || count <= 0 || begin + count > num_columns(source)) {
    fail(fmt::format("columns [{}, {}) of {}", begin, begin + count, to_string(source)));
  }
  WeightSource taken = source;
  for (WeightPart& part : taken) {
    part.column_begin += begin;
    part.num_columns = count;
  }
  return taken;
}

WeightSource stack(WeightSource top, const WeightSource& bottom) {
  if (!top.empty() && !bottom.empty() && num_columns(top) != num_columns(bottom)) {
    fail(fmt::format("{} and {} have different columns", to_string(top), to_string(bottom)));
  }
  top.insert(top.end(), bottom.begin(), bottom.end());
  return top;
}

std::string to_string(const WeightSource& source) {
  constexpr size_t kShown = 4;
  std::string text;
  for (size_t i = 0; i < std::min(source.size(), kShown); ++i) {
    text += (i == 0 ? "" : " + ") + to_string(source[i]);
  }
  return source.size() <= kShown ? text : fmt::format("{} + {} more", text, source.size() - kShown);
}

}  // namespace lamina
