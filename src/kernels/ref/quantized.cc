#include "kernels/ref/quantized.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/ref/element.h"

namespace lamina::kernels::ref {
namespace {

// A row of x as it takes part in products: rounded to int8 by blocks, times the scale.
std::vector<double> rounded_row(const TensorView& x, int64_t token) {
  const int64_t depth = x.shape[1];
  std::vector<double> row(static_cast<size_t>(depth));
  for (int64_t begin = 0; begin < depth; begin += kQuantBlock) {
    float largest = 0.0F;
    for (int64_t k = begin; k < begin + kQuantBlock; ++k) {
      largest = std::max(largest, std::fabs(get(x, token, k)));
    }
    const float scale = largest / 127.0F;
    const float inverse = largest > 0.0F ? 127.0F / largest : 0.0F;
    for (int64_t k = begin; k < begin + kQuantBlock; ++k) {
      row[static_cast<size_t>(k)] =
          double{scale} * std::nearbyint(double{get(x, token, k) * inverse});
    }
  }
  return row;
}

}  // namespace

void quantized_linear(const QuantizedLinearArgs& args) {
  const QuantizedMatrix& weight = args.weight;
  for (int64_t token = 0; token < args.x.shape[0]; ++token) {
    const std::vector<double> x = rounded_row(args.x, token);
    for (int64_t n = 0; n < weight.rows; ++n) {
      double sum = args.bias.empty() ? 0.0 : double{get(args.bias, n, 0)};
      for (int64_t block = 0; block < weight.num_blocks(); ++block) {
        std::array<float, kQuantBlock> values{};
        weight.get_block(n, block, values);
        for (size_t i = 0; i < values.size(); ++i) {
          sum += x[static_cast<size_t>(block * kQuantBlock) + i] * double{values[i]};
        }
      }
      put(args.out, token, n, static_cast<float>(sum));
    }
  }
}

void quantized_embedding(const QuantizedMatrix& table,
                         const TensorView& ids,
                         const TensorView& out) {
  for (int64_t i = 0; i < ids.shape[0]; ++i) {
    for (int64_t block = 0; block < table.num_blocks(); ++block) {
      std::array<float, kQuantBlock> values{};
      table.get_block(*ids.row<int32_t>(i), block, values);
      for (size_t k = 0; k < values.size(); ++k) {
        put(out, i, block * kQuantBlock + static_cast<int64_t>(k), values[k]);
      }
    }
  }
}

}  // namespace lamina::kernels::ref
