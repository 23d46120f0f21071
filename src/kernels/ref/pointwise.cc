#include "kernels/ref/pointwise.h"

#include <cmath>

#include "kernels/ref/element.h"

namespace lamina::kernels::ref {

void gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  for (int64_t s = 0; s < rows.shape[0]; ++s) {
    for (int64_t i = 0; i < x.row_elements(); ++i) {
      put(out, s, i, get(x, *rows.row<int32_t>(s), i));
    }
  }
}

void rms_norm(const TensorView& x, const TensorView& weight, float eps, const TensorView& out) {
  const int64_t width = x.shape[-1];
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t begin = 0; begin < x.row_elements(); begin += width) {
      double squares = 0.0;
      for (int64_t i = 0; i < width; ++i) {
        squares += double{get(x, t, begin + i)} * double{get(x, t, begin + i)};
      }
      const double factor = 1.0 / std::sqrt(squares / static_cast<double>(width) + double{eps});
      for (int64_t i = 0; i < width; ++i) {
        const double normed = double{get(x, t, begin + i)} * factor;
        put(out, t, begin + i, static_cast<float>(normed * double{get(weight, i, 0)}));
      }
    }
  }
}

void rope_table(const TensorView& positions,
                std::span<const float> inv_freq,
                float magnitude,
                const TensorView& out) {
  for (int64_t t = 0; t < positions.shape[0]; ++t) {
    int64_t i = 0;
    for (const float frequency : inv_freq) {
      // The angle is an f32 product, as it is where models are trained.
      const float angle = static_cast<float>(*positions.row<int32_t>(t)) * frequency;
      put(out, t, i, static_cast<float>(std::cos(double{angle}) * double{magnitude}));
      put(out,
          t,
          i + static_cast<int64_t>(inv_freq.size()),
          static_cast<float>(std::sin(double{angle}) * double{magnitude}));
      ++i;
    }
  }
}

void rope(const TensorView& x, const TensorView& table, const TensorView& out) {
  const int64_t head_dim = x.shape[2];
  const int64_t half = table.shape[1] / 2;
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t begin = 0; begin < x.row_elements(); begin += head_dim) {
      for (int64_t i = 0; i < half; ++i) {
        const double a = get(x, t, begin + i);
        const double b = get(x, t, begin + half + i);
        const double cosine = get(table, t, i);
        const double sine = get(table, t, half + i);
        put(out, t, begin + i, static_cast<float>(a * cosine - b * sine));
        put(out, t, begin + half + i, static_cast<float>(b * cosine + a * sine));
      }
      for (int64_t i = 2 * half; i < head_dim; ++i) {
        put(out, t, begin + i, get(x, t, begin + i));
      }
    }
  }
}

void add(const TensorView& a, const TensorView& b, const TensorView& out) {
  for (int64_t t = 0; t < a.shape[0]; ++t) {
    for (int64_t i = 0; i < a.row_elements(); ++i) put(out, t, i, get(a, t, i) + get(b, t, i));
  }
}

void mul(const TensorView& a, const TensorView& b, const TensorView& out) {
  for (int64_t t = 0; t < a.shape[0]; ++t) {
    for (int64_t i = 0; i < a.row_elements(); ++i) put(out, t, i, get(a, t, i) * get(b, t, i));
  }
}

void silu(const TensorView& x, const TensorView& out) {
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t i = 0; i < x.row_elements(); ++i) {
      const double value = get(x, t, i);
      put(out, t, i, static_cast<float>(value / (1.0 + std::exp(-value))));
    }
  }
}

}  // namespace lamina::kernels::ref
