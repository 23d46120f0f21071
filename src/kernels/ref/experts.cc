#include "kernels/ref/experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/ref/element.h"
#include "kernels/ref/linear.h"
#include "kernels/ref/pointwise.h"

namespace lamina::kernels::ref {
namespace {

// Indices of `scores`, best first, the smaller index among equals.
std::vector<size_t> ranking(const std::vector<double>& scores) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(
      order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  return order;
}

}  // namespace

void route(const TensorView& logits,
           const TensorView& bias,
           const RouteAttrs& attrs,
           const TensorView& out) {
  const auto num_experts = static_cast<size_t>(logits.shape[1]);
  const size_t group_size = num_experts / static_cast<size_t>(attrs.num_groups);
  for (int64_t t = 0; t < logits.shape[0]; ++t) {
    std::vector<double> weights(num_experts);
    double total = 0.0;
    for (size_t i = 0; i < num_experts; ++i) {
      const double logit = get(logits, t, static_cast<int64_t>(i));
      weights[i] = attrs.scoring == RouteScoring::kSoftmax ? std::exp(logit)
                                                           : 1.0 / (1.0 + std::exp(-logit));
      total += weights[i];
    }
    std::vector<double> scores(num_experts);
    for (size_t i = 0; i < num_experts; ++i) {
      if (attrs.scoring == RouteScoring::kSoftmax) weights[i] /= total;
      scores[i] = weights[i] + (bias.empty() ? 0.0 : double{get(bias, static_cast<int64_t>(i), 0)});
    }
    std::vector<double> of_groups;
    for (size_t begin = 0; begin < num_experts; begin += group_size) {
      const auto first = scores.begin() + static_cast<std::ptrdiff_t>(begin);
      std::vector<double> group(first, first + static_cast<std::ptrdiff_t>(group_size));
      std::sort(group.rbegin(), group.rend());
      of_groups.push_back(group[0] + (!bias.empty() && group_size > 1 ? group[1] : 0.0));
    }
    const std::vector<size_t> best_groups = ranking(of_groups);
    for (size_t rank = static_cast<size_t>(attrs.top_groups); rank < best_groups.size(); ++rank) {
      for (size_t i = 0; i < group_size; ++i) scores[best_groups[rank] * group_size + i] = -1e300;
    }
    const std::vector<size_t> best = ranking(scores);
    double sum = 0.0;
    for (int32_t i = 0; i < attrs.top_k; ++i) sum += weights[best[static_cast<size_t>(i)]];
    for (size_t i = 0; i < num_experts; ++i) put(out, t, static_cast<int64_t>(i), 0.0F);
    for (int32_t i = 0; i < attrs.top_k; ++i) {
      const size_t expert = best[static_cast<size_t>(i)];
      const double weight = weights[expert] / (attrs.renormalize ? sum : 1.0) * attrs.scale;
      put(out, t, static_cast<int64_t>(expert), static_cast<float>(weight));
    }
  }
}

void experts(const ExpertsArgs& args) {
  const int64_t depth = args.x.shape[1];
  const Shape down_shape = args.down.shape();
  const int64_t inner = down_shape[2];
  const auto bias_of = [](const TensorView& bias, int64_t expert, int64_t i) {
    return bias.empty() ? 0.0 : double{get(bias, expert, i)};
  };
  for (int64_t t = 0; t < args.x.shape[0]; ++t) {
    std::vector<float> x(static_cast<size_t>(depth));
    for (size_t k = 0; k < x.size(); ++k) x[k] = get(args.x, t, static_cast<int64_t>(k));
    std::vector<double> sums(static_cast<size_t>(args.out.shape[1]));
    for (int64_t expert = 0; expert < down_shape[0]; ++expert) {
      const double weight = get(args.routes, t, expert);
      if (weight == 0.0) continue;
      const WeightView gate_up = args.gate_up.matrix(expert);
      const WeightView down = args.down.matrix(expert);
      const std::vector<double> row = product_row(gate_up, x);
      const auto inner_value = [&](int64_t n) {
        return bias_of(args.gate_up_bias, expert, n) + dot(row, weight_row(gate_up, n));
      };
      std::vector<float> activated(static_cast<size_t>(inner));
      for (int64_t k = 0; k < inner; ++k) {
        activated[static_cast<size_t>(k)] =
            static_cast<float>(gate(inner_value(k), inner_value(inner + k), args.attrs));
      }
      const std::vector<double> inner_row = product_row(down, activated);
      for (int64_t n = 0; n < args.out.shape[1]; ++n) {
        const double sum = bias_of(args.down_bias, expert, n) + dot(inner_row, weight_row(down, n));
        sums[static_cast<size_t>(n)] += weight * sum;
      }
    }
    for (size_t n = 0; n < sums.size(); ++n) {
      put(args.out, t, static_cast<int64_t>(n), static_cast<float>(sums[n]));
    }
  }
}

}  // namespace lamina::kernels::ref
