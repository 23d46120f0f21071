// Test support: random graphs of the shapes that rewrites and the slicer meet, and of many that no
// model has.
#pragma once

#include <vector>

#include "base/rng.h"
#include "convert/graph_sketch.h"

namespace lamina::test {

// A random model: layers that mix random earlier values, with dead ends, values used in many
// layers, cheap chains, and attentions whose k and v may come from anywhere.
class RandomModel {
 public:
  explicit RandomModel(uint64_t seed) : rng_(seed) {}

  Graph build(uint64_t num_attentions, uint64_t ops_between) {
    values_.push_back(g_.embed(width()));
    for (uint64_t layer = 0; layer < num_attentions; ++layer) {
      for (uint64_t i = rng_.next_below(ops_between + 1); i > 0; --i) add_random_op();
      add_attention();
    }
    for (uint64_t i = rng_.next_below(ops_between + 1); i > 0; --i) add_random_op();
    ValueId out = g_.linear(last_attention_, 16);
    for (uint64_t i = rng_.next_below(3); i > 0; --i) out = g_.add(out, g_.linear(any(), 16));
    return g_.finish(out);
  }

 private:
  int64_t width() { return int64_t{8} << rng_.next_below(3); }
  ValueId any() { return values_[rng_.next_below(values_.size())]; }

  void add_random_op() {
    const ValueId x = any();
    switch (rng_.next_below(11)) {
      case 0:
        values_.push_back(g_.embed(width()));
        return;
      case 1:
        values_.push_back(g_.norm(x));
        return;
      case 2:
        values_.push_back(g_.silu(x));
        return;
      case 3:
        values_.push_back(g_.add(x, g_.linear(any(), g_.width_of(x))));
        return;
      case 4: {
        const ValueId angles = table();
        values_.push_back(g_.flat(g_.rope(g_.heads(x), angles)));
        return;
      }
      case 5:
        add_gated_product();
        return;
      case 6:  // a sum and its norm, as residual streams have them
        values_.push_back(g_.add(x, g_.linear(any(), g_.width_of(x))));
        values_.push_back(g_.norm(values_.back()));
        return;
      case 7:
        add_sum();
        return;
      case 8:
        values_.push_back(g_.scale(x, rng_.next_below(2) == 0 ? 1.0F : 0.5F));
        return;
      case 9:
        add_columns(x);
        return;
      default:
        values_.push_back(g_.linear(x, width()));
    }
  }

  void add_columns(ValueId x) {
    const auto eighths = static_cast<uint64_t>(g_.width_of(x)) / 8;
    const uint64_t begin = rng_.next_below(eighths);
    const uint64_t count = 1 + rng_.next_below(eighths - begin);
    values_.push_back(
        g_.columns(x, static_cast<int64_t>(8 * begin), static_cast<int64_t>(8 * count)));
  }

  void add_gated_product() {
    const ValueId x = g_.norm(any());
    const int64_t inner = width();
    const bool gate_first = rng_.next_below(2) == 0;
    const ValueId first = g_.linear(x, inner);
    const ValueId second = g_.linear(x, inner);
    const ValueId gate = g_.silu(gate_first ? first : second);
    const ValueId up = gate_first ? second : first;
    const ValueId inner_value = rng_.next_below(2) == 0 ? g_.mul(gate, up) : g_.mul(up, gate);
    values_.push_back(g_.linear(inner_value, width()));
  }

  // Three terms from anywhere, in any order and either association.
  void add_sum() {
    const ValueId a = any();
    const ValueId b = g_.linear(any(), g_.width_of(a));
    const ValueId c = g_.linear(any(), g_.width_of(a));
    values_.push_back(rng_.next_below(2) == 0 ? g_.add(a, g_.add(b, c)) : g_.add(g_.add(a, b), c));
  }

  // A cheap value; some graphs share one, some make several, some through a chain.
  ValueId table() {
    if (tables_.empty() || rng_.next_below(3) == 0) tables_.push_back(g_.rope_table());
    if (rng_.next_below(3) == 0) tables_.push_back(g_.add(tables_.front(), tables_.back()));
    return tables_[rng_.next_below(tables_.size())];
  }

  void add_attention() {
    const int64_t q_width = width();
    // q depends on the attention before it, which orders them.
    const ValueId x = last_attention_ < 0 ? any() : last_attention_;
    if (rng_.next_below(3) == 0) return add_self_attention(x, q_width);
    ValueId q = g_.linear(x, q_width);
    if (rng_.next_below(2) == 0) q = g_.add(q, g_.linear(any(), q_width));
    ValueId k = g_.heads(g_.linear(any(), 8));
    if (rng_.next_below(2) == 0) k = g_.rope(k, table());
    if (rng_.next_below(4) == 0 && last_k_ >= 0) k = last_k_;
    last_k_ = k;
    const ValueId v = rng_.next_below(4) == 0 ? k : g_.heads(g_.linear(any(), 8));
    last_attention_ = g_.flat(g_.attention_of_heads(g_.heads(q), k, v));
    values_.push_back(last_attention_);
  }

  // q, k and v of one input, in any order, turned or not.
  void add_self_attention(ValueId x, int64_t q_width) {
    const bool k_first = rng_.next_below(2) == 0;
    ValueId k = k_first ? g_.heads(g_.linear(x, 8)) : -1;
    ValueId q = g_.heads(g_.linear(x, q_width));
    if (!k_first) k = g_.heads(g_.linear(x, 8));
    const ValueId v = g_.heads(g_.linear(x, 8));
    if (rng_.next_below(3) > 0) {
      const ValueId angles = table();
      q = g_.rope(q, angles);
      k = g_.rope(k, angles);
    }
    if (rng_.next_below(3) == 0) q = g_.scale(q, 0.25F);
    last_k_ = k;
    last_attention_ = g_.flat(g_.attention_of_heads(q, k, v));
    values_.push_back(last_attention_);
  }

  Rng rng_;
  GraphSketch g_;
  std::vector<ValueId> values_;
  std::vector<ValueId> tables_;
  ValueId last_attention_ = -1;
  ValueId last_k_ = -1;
};

}  // namespace lamina::test
