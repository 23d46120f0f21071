#include "kernels/ref/pointwise.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/ref/element.h"

namespace lamina::kernels::ref {

void gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  for (int64_t s = 0; s < rows.shape[0]; ++s) {
    for (int64_t i = 0; i < x.row_elements(); ++i) {
      put(out, s, i, get(x, *rows.row<int32_t>(s), i));
    }
  }
}

void norm(const NormArgs& args) {
  const TensorView& x = args.x;
  const int64_t width = x.shape[-1];
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t begin = 0; begin < x.row_elements(); begin += width) {
      double mean = 0.0;
      double squares = 0.0;
      const auto value = [&](int64_t i) { return double{get(x, t, begin + i)}; };
      for (int64_t i = 0; i < width; ++i) mean += value(i) / static_cast<double>(width);
      if (args.attrs.kind == NormKind::kRms) mean = 0.0;
      for (int64_t i = 0; i < width; ++i) squares += (value(i) - mean) * (value(i) - mean);
      const double factor =
          1.0 / std::sqrt(squares / static_cast<double>(width) + double{args.attrs.eps});
      for (int64_t i = 0; i < width; ++i) {
        const int64_t at = (begin + i) % args.weight.shape.num_elements();
        const double weight = double{get(args.weight, 0, at)} + double{args.attrs.weight_offset};
        const double bias = args.bias.empty() ? 0.0 : double{get(args.bias, 0, at)};
        put(args.out, t, begin + i, static_cast<float>((value(i) - mean) * factor * weight + bias));
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

void rope(const TensorView& x, const TensorView& table, bool interleaved, const TensorView& out) {
  const int64_t head_dim = x.shape[2];
  const int64_t half = table.shape[1] / 2;
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t begin = 0; begin < x.row_elements(); begin += head_dim) {
      for (int64_t i = 0; i < half; ++i) {
        const int64_t first = begin + (interleaved ? 2 * i : i);
        const int64_t second = interleaved ? first + 1 : first + half;
        const double a = get(x, t, first);
        const double b = get(x, t, second);
        const double cosine = get(table, t, i);
        const double sine = get(table, t, half + i);
        put(out, t, first, static_cast<float>(a * cosine - b * sine));
        put(out, t, second, static_cast<float>(b * cosine + a * sine));
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

void soft_cap(const TensorView& x, float cap, const TensorView& out) {
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t i = 0; i < x.row_elements(); ++i) {
      put(out, t, i, static_cast<float>(double{cap} * std::tanh(double{get(x, t, i)} / cap)));
    }
  }
}

double activate(double x, Activation kind) {
  switch (kind) {
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kReluSquared:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kQuickGelu:
      return x / (1.0 + std::exp(-1.702 * x));
    case Activation::kSigmoid:
      return 1.0 / (1.0 + std::exp(-x));
  }
  return 0.0;
}

double gate(double gate, double up, const GatedActivationAttrs& attrs) {
  if (!attrs.limit) return activate(gate, attrs.activation) * up;
  const double limit = *attrs.limit;
  return activate(std::min(gate, limit), attrs.activation) * (std::clamp(up, -limit, limit) + 1.0);
}

void activation(const TensorView& x, Activation kind, const TensorView& out) {
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t i = 0; i < x.row_elements(); ++i) {
      put(out, t, i, static_cast<float>(activate(get(x, t, i), kind)));
    }
  }
}

void gated_activation(const TensorView& x,
                      const GatedActivationAttrs& attrs,
                      const TensorView& out) {
  const int64_t width = out.shape[1];
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t i = 0; i < width; ++i) {
      put(out, t, i, static_cast<float>(gate(get(x, t, i), get(x, t, width + i), attrs)));
    }
  }
}

}  // namespace lamina::kernels::ref
