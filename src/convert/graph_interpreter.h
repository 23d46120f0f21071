// Test support: what a graph computes, in double precision and written to be read. Weights are made
// of their sources: every element of a stored tensor has a value of its own, so that a rewrite that
// puts weights together otherwise is caught where it takes the wrong rows. Attention is over the
// tokens of the step, which are one sequence.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "graph/graph.h"

namespace lamina::test {

class GraphInterpreter {
 public:
  explicit GraphInterpreter(const Graph& graph) : graph_(graph) {}

  // The output, row by row.
  std::vector<double> run() {
    for (const Node& node : graph_.nodes()) values_.push_back(compute(node));
    return values_[static_cast<size_t>(graph_.output())];
  }

 private:
  using Values = std::vector<double>;
  static constexpr int64_t kNumTokens = 3;

  [[nodiscard]] const Values& in(const Node& node, size_t i) const {
    return values_[static_cast<size_t>(node.inputs[i])];
  }
  [[nodiscard]] const ValueType& in_type(const Node& node, size_t i) const {
    return graph_.type(node.inputs[i]);
  }
  static int64_t rows_of(const ValueType& type) {
    return type.rows == RowAxis::kLogits ? 2 : kNumTokens;
  }

  static Values weight(const Node& node) {
    Values made;
    for (const WeightPart& part : std::get<WeightAttrs>(node.attrs).source) {
      const int64_t columns = part.stored.rank() < 2 ? 1 : part.stored[-1];
      for (int64_t i = 0; i < part.rows.num_rows(); ++i) {
        const int64_t row =
            part.rows.begin + i / part.rows.count * part.rows.stride + i % part.rows.count;
        for (int64_t j = 0; j < part.num_columns; ++j) {
          const int64_t column = part.column_begin + j;
          const int64_t at = part.transposed ? (part.matrix_begin + column) * columns + row
                                             : (part.matrix_begin + row) * columns + column;
          Rng rng(std::hash<std::string>{}(part.tensor), static_cast<uint64_t>(at));
          made.push_back(rng.next_double() - 0.5);
        }
      }
    }
    return made;
  }

  Values compute(const Node& node) {
    switch (node.kind) {
      case OpKind::kInput:
        if (node.name == "logits_rows") return {2, 0};
        return node.name == "positions" ? Values{0, 1, 2} : Values{7, 3, 11};
      case OpKind::kWeight:
        return weight(node);
      case OpKind::kEmbedding:
        return gather(in(node, 0), in(node, 1), node.type.row_shape.num_elements());
      case OpKind::kGatherRows:
        return gather(in(node, 0), in(node, 1), node.type.row_shape.num_elements());
      case OpKind::kLinear:
        return linear(node);
      case OpKind::kAttention:
        return attention(node);
      case OpKind::kNorm:
        return norm(in(node, 0), node, 1, in_type(node, 0).row_shape[-1]);
      case OpKind::kAddNorm:
        return add_norm(node);
      case OpKind::kAdd:
        return zip(in(node, 0), in(node, 1), std::plus<>());
      case OpKind::kMul:
        return zip(in(node, 0), in(node, 1), std::multiplies<>());
      case OpKind::kScale: {
        const double factor = std::get<ScaleAttrs>(node.attrs).factor;
        return map(in(node, 0), [&](double x) { return x * factor; });
      }
      case OpKind::kActivation:
        return map(in(node, 0), [](double x) { return x / (1.0 + std::exp(-x)); });
      case OpKind::kGatedActivation:
        return gated(node);
      case OpKind::kRopeTable:
        return rope_table(node);
      case OpKind::kRope:
        return rope(node);
      case OpKind::kReshape:
        return in(node, 0);
      case OpKind::kColumns:
        return columns(node);
      default:
        break;
    }
    LAMINA_CHECK(false, std::string(op_kind_name(node.kind)));
    return {};
  }

  static Values map(const Values& x, const std::function<double(double)>& apply) {
    Values out;
    for (const double value : x) out.push_back(apply(value));
    return out;
  }
  static Values zip(const Values& a,
                    const Values& b,
                    const std::function<double(double, double)>& apply) {
    LAMINA_CHECK_EQ(a.size(), b.size());
    Values out;
    for (size_t i = 0; i < a.size(); ++i) out.push_back(apply(a[i], b[i]));
    return out;
  }
  static Values gather(const Values& table, const Values& ids, int64_t width) {
    Values out;
    for (const double id : ids) {
      const auto begin = table.begin() + static_cast<int64_t>(id) * width;
      out.insert(out.end(), begin, begin + width);
    }
    return out;
  }

  [[nodiscard]] Values linear(const Node& node) const {
    const int64_t width = in_type(node, 0).row_shape[0];
    const int64_t out_width = node.type.row_shape[0];
    Values out;
    for (int64_t t = 0; t < rows_of(node.type); ++t) {
      for (int64_t n = 0; n < out_width; ++n) {
        double sum = node.inputs.size() > 2 ? in(node, 2)[static_cast<size_t>(n)] : 0.0;
        for (int64_t k = 0; k < width; ++k) {
          sum += in(node, 0)[static_cast<size_t>(t * width + k)] *
                 in(node, 1)[static_cast<size_t>(n * width + k)];
        }
        out.push_back(sum);
      }
    }
    return out;
  }

  [[nodiscard]] Values attention(const Node& node) const {
    const auto& attrs = std::get<AttentionAttrs>(node.attrs);
    const int64_t group = attrs.num_heads / attrs.num_kv_heads;
    const auto at =
        [&](size_t input, int64_t t, int64_t heads, int64_t head, int64_t dim, int64_t i) {
          return in(node, input)[static_cast<size_t>((t * heads + head) * dim + i)];
        };
    Values out;
    for (int64_t t = 0; t < kNumTokens; ++t) {
      for (int64_t h = 0; h < attrs.num_heads; ++h) {
        Values mixed(static_cast<size_t>(attrs.value_dim));
        double total = 0.0;
        for (int64_t s = 0; s <= t; ++s) {
          double score = 0.0;
          for (int64_t i = 0; i < attrs.head_dim; ++i) {
            score += at(0, t, attrs.num_heads, h, attrs.head_dim, i) *
                     at(1, s, attrs.num_kv_heads, h / group, attrs.head_dim, i);
          }
          // Scores are squashed: random graphs have large ones, which would make a choice of them.
          const double weight = std::exp(std::tanh(score * attrs.scale / 64.0));
          total += weight;
          for (int64_t i = 0; i < attrs.value_dim; ++i) {
            mixed[static_cast<size_t>(i)] +=
                weight * at(2, s, attrs.num_kv_heads, h / group, attrs.value_dim, i);
          }
        }
        for (const double value : mixed) out.push_back(value / total);
      }
    }
    return out;
  }

  // Over the last axis, `width` elements; the weight is input `first`.
  [[nodiscard]] Values norm(const Values& x, const Node& node, size_t first, int64_t width) const {
    const auto& attrs = std::get<NormAttrs>(node.attrs);
    LAMINA_CHECK(attrs.kind == NormKind::kRms);
    Values out;
    for (size_t row = 0; row < x.size(); row += static_cast<size_t>(width)) {
      double squares = 0.0;
      for (size_t i = 0; i < static_cast<size_t>(width); ++i) squares += x[row + i] * x[row + i];
      const double factor = 1.0 / std::sqrt(squares / static_cast<double>(width) + attrs.eps);
      for (size_t i = 0; i < static_cast<size_t>(width); ++i) {
        out.push_back(x[row + i] * factor * (in(node, first)[i] + attrs.weight_offset));
      }
    }
    return out;
  }

  [[nodiscard]] Values add_norm(const Node& node) const {
    const int64_t width = in_type(node, 0).row_shape[0];
    const Values sum = zip(in(node, 0), in(node, 1), std::plus<>());
    const Values normed = norm(sum, node, 2, width);
    Values out;
    for (auto row = sum.begin(); row != sum.end(); row += width) {
      out.insert(out.end(), row, row + width);
      const auto normed_row = normed.begin() + (row - sum.begin());
      out.insert(out.end(), normed_row, normed_row + width);
    }
    return out;
  }

  [[nodiscard]] Values gated(const Node& node) const {
    const int64_t width = node.type.row_shape[0];
    Values out;
    for (int64_t t = 0; t < rows_of(node.type); ++t) {
      for (int64_t i = 0; i < width; ++i) {
        const double gate = in(node, 0)[static_cast<size_t>(2 * t * width + i)];
        const double up = in(node, 0)[static_cast<size_t>((2 * t + 1) * width + i)];
        out.push_back(gate / (1.0 + std::exp(-gate)) * up);
      }
    }
    return out;
  }

  [[nodiscard]] Values rope_table(const Node& node) const {
    const auto& attrs = std::get<RopeTableAttrs>(node.attrs);
    Values out;
    for (const double position : in(node, 0)) {
      for (const float step : attrs.inv_freq) out.push_back(std::cos(position * step));
      for (const float step : attrs.inv_freq) out.push_back(std::sin(position * step));
    }
    return out;
  }

  [[nodiscard]] Values rope(const Node& node) const {
    const auto heads = static_cast<size_t>(node.type.row_shape[0]);
    const auto dim = static_cast<size_t>(node.type.row_shape[1]);
    const auto turned = static_cast<size_t>(in_type(node, 1).row_shape[0]);
    Values out = in(node, 0);
    for (size_t row = 0; row < out.size() / dim; ++row) {
      for (size_t i = 0; i < turned / 2; ++i) {
        const double cosine = in(node, 1)[row / heads * turned + i];
        const double sine = in(node, 1)[row / heads * turned + turned / 2 + i];
        double& a = out[row * dim + i];
        double& b = out[row * dim + i + turned / 2];
        const double first = a;
        a = first * cosine - b * sine;
        b = b * cosine + first * sine;
      }
    }
    return out;
  }

  [[nodiscard]] Values columns(const Node& node) const {
    const auto& range = std::get<ColumnsAttrs>(node.attrs);
    const int64_t from = in_type(node, 0).row_shape.num_elements();
    const int64_t count = node.type.row_shape.num_elements();
    const int64_t begin = range.begin * (count / range.count);
    Values out;
    for (int64_t t = 0; t < rows_of(node.type); ++t) {
      const auto row = in(node, 0).begin() + t * from + begin;
      out.insert(out.end(), row, row + count);
    }
    return out;
  }

  const Graph& graph_;
  std::vector<Values> values_;
};

}  // namespace lamina::test
