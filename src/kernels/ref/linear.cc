#include "kernels/ref/linear.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "kernels/ref/element.h"

namespace lamina::kernels::ref {
namespace {

std::vector<float> row_of(const TensorView& x, int64_t row, int64_t begin, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t k = 0; k < values.size(); ++k) {
    values[k] = get(x, row, begin + static_cast<int64_t>(k));
  }
  return values;
}

}  // namespace

std::vector<double> weight_row(const WeightView& weight, int64_t row) {
  std::vector<double> values(static_cast<size_t>(weight.shape()[1]));
  for (size_t k = 0; k < values.size(); ++k) {
    if (weight.is_packed() && k % kBlockColumns == 0) {
      std::array<float, kBlockColumns> block{};
      weight.packed.get_block(row, static_cast<int64_t>(k) / kBlockColumns, block);
      std::copy(block.begin(), block.end(), values.begin() + static_cast<std::ptrdiff_t>(k));
    } else if (!weight.is_packed()) {
      values[k] = double{get(weight.tensor, row, static_cast<int64_t>(k))};
    }
  }
  return values;
}

std::vector<double> product_row(const WeightView& weight, const std::vector<float>& x) {
  std::vector<double> row(x.begin(), x.end());
  if (!weight.is_packed() || !is_quantized(weight.packed.format)) return row;
  for (size_t begin = 0; begin < x.size(); begin += kBlockColumns) {
    const auto block = std::span(x).subspan(begin, kBlockColumns);
    float largest = 0.0F;
    for (const float value : block) largest = std::max(largest, std::fabs(value));
    const float scale = largest / 127.0F;
    const float inverse = largest > 0.0F ? 127.0F / largest : 0.0F;
    for (size_t i = 0; i < block.size(); ++i) {
      row[begin + i] = double{scale} * std::nearbyint(double{block[i] * inverse});
    }
  }
  return row;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

void linear_part(const LinearArgs& args, int64_t begin, int64_t end) {
  std::vector<std::vector<double>> rows;
  for (int64_t t = 0; t < args.x.shape[0]; ++t) {
    rows.push_back(product_row(args.weight, row_of(args.x, t, 0, args.x.shape[1])));
  }
  for (int64_t n = begin; n < end; ++n) {
    const std::vector<double> weight = weight_row(args.weight, n);
    const double bias = args.bias.empty() ? 0.0 : double{get(args.bias, n, 0)};
    for (size_t t = 0; t < rows.size(); ++t) {
      put(args.out, static_cast<int64_t>(t), n, static_cast<float>(bias + dot(rows[t], weight)));
    }
  }
}

void linear(const LinearArgs& args) {
  linear_part(args, 0, args.weight.shape()[0]);
}

void head_linear(const TensorView& x, const WeightView& weight, const TensorView& out) {
  const int64_t depth = x.shape[2];
  const int64_t width = weight.shape()[1];
  for (int64_t head = 0; head < x.shape[1]; ++head) {
    const WeightView matrix = weight.matrix(head);
    for (int64_t t = 0; t < x.shape[0]; ++t) {
      const std::vector<double> of_head = product_row(matrix, row_of(x, t, head * depth, depth));
      for (int64_t n = 0; n < width; ++n) {
        put(out, t, head * width + n, static_cast<float>(dot(of_head, weight_row(matrix, n))));
      }
    }
  }
}

}  // namespace lamina::kernels::ref
