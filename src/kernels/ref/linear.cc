#include "kernels/ref/linear.h"

#include "kernels/ref/element.h"

namespace lamina::kernels::ref {

void linear(const LinearArgs& args) {
  const int64_t num_columns = args.weight.shape[0];
  const int64_t depth = args.weight.shape[1];
  for (int64_t t = 0; t < args.x.shape[0]; ++t) {
    for (int64_t n = 0; n < num_columns; ++n) {
      double sum = args.bias.empty() ? 0.0 : double{get(args.bias, n, 0)};
      for (int64_t k = 0; k < depth; ++k) {
        sum += double{get(args.x, t, k)} * double{get(args.weight, n, k)};
      }
      put(args.out, t, n, static_cast<float>(sum));
    }
  }
}

void head_linear(const TensorView& x, const TensorView& weight, const TensorView& out) {
  const int64_t depth = x.shape[2];
  const int64_t width = weight.shape[1];
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t head = 0; head < x.shape[1]; ++head) {
      for (int64_t n = 0; n < width; ++n) {
        double sum = 0.0;
        for (int64_t k = 0; k < depth; ++k) {
          sum += double{get(x, t, head * depth + k)} * double{get(weight, head, n * depth + k)};
        }
        put(out, t, head * width + n, static_cast<float>(sum));
      }
    }
  }
}

}  // namespace lamina::kernels::ref
