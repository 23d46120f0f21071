// Slicing random graphs: joined again the slices compute what the graph does, and every cut weighs
// as little as trying all of them finds.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <string>

#include "base/rng.h"
#include "convert/graph_sketch.h"
#include "convert/node_sets.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

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
    switch (rng_.next_below(6)) {
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
      default:
        values_.push_back(g_.linear(x, width()));
    }
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
    ValueId q = g_.linear(last_attention_ < 0 ? any() : last_attention_, q_width);
    if (rng_.next_below(2) == 0) q = g_.add(q, g_.linear(any(), q_width));
    ValueId k = g_.heads(g_.linear(any(), 8));
    if (rng_.next_below(2) == 0) k = g_.rope(k, table());
    if (rng_.next_below(4) == 0 && last_k_ >= 0) k = last_k_;
    last_k_ = k;
    const ValueId v = rng_.next_below(4) == 0 ? k : g_.heads(g_.linear(any(), 8));
    last_attention_ = g_.flat(g_.attention_of_heads(g_.heads(q), k, v));
    values_.push_back(last_attention_);
  }

  Rng rng_;
  test::GraphSketch g_;
  std::vector<ValueId> values_;
  std::vector<ValueId> tables_;
  ValueId last_attention_ = -1;
  ValueId last_k_ = -1;
};

// What a value is, as a hash of the whole expression that makes it.
using Expression = size_t;

Expression apply(const Node& node, const std::function<Expression(ValueId)>& value_of) {
  std::string text = fmt::format("{}:{}", op_kind_name(node.kind), to_string(node.type));
  if (is_leaf(node)) text += node.name;
  for (const ValueId input : node.inputs) text += fmt::format(",{}", value_of(input));
  return std::hash<std::string>{}(text);
}

Expression evaluate_graph(const Graph& graph) {
  std::vector<Expression> values;
  for (const Node& node : graph.nodes()) {
    values.push_back(apply(node, [&](ValueId id) { return values[static_cast<size_t>(id)]; }));
  }
  return values[static_cast<size_t>(graph.output())];
}

// Runs the slices one after another as an executor would: a slice sees the leaves, what it carries
// in and what it makes; an attention sees what was sent to it. std::map::at throws on all else.
Expression evaluate_slices(const SlicedModel& model) {
  struct Sent {
    Expression q = 0, k = 0, v = 0;
  };
  std::map<int32_t, Sent> sent;
  std::map<ValueId, Expression> kept;
  std::map<ValueId, Expression> values;
  for (const Slice& slice : model.slices) {
    values.clear();
    for (const Node& node : model.graph.nodes()) {
      if (is_leaf(node)) values[node.id] = apply(node, {});
    }
    for (const ValueId value : slice.carried_in) values[value] = kept.at(value);
    for (const Instruction& instruction : slice.program) {
      const auto attention = static_cast<size_t>(std::max(instruction.attention_idx, 0));
      switch (instruction.kind) {
        case InstructionKind::kCompute:
          values[instruction.node] =
              apply(model.graph.node(instruction.node), [&](ValueId id) { return values.at(id); });
          break;
        case InstructionKind::kSendQ:
          sent[instruction.attention_idx].q = values.at(model.attentions.at(attention).q);
          break;
        case InstructionKind::kSendKv:
          sent[instruction.attention_idx].k = values.at(model.attentions.at(attention).k);
          sent[instruction.attention_idx].v = values.at(model.attentions.at(attention).v);
          break;
        case InstructionKind::kReceive: {
          const AttentionOp& op = model.attentions.at(attention);
          const Sent& input = sent.at(instruction.attention_idx);
          values[op.out] = apply(model.graph.node(op.node), [&](ValueId id) {
            if (id == op.q) return input.q;
            return id == op.k ? input.k : input.v;
          });
          break;
        }
      }
    }
    std::map<ValueId, Expression> still_kept;
    for (const ValueId value : slice.carried_out) {
      still_kept[value] = values.contains(value) ? values[value] : kept.at(value);
    }
    kept = std::move(still_kept);
  }
  EXPECT_TRUE(kept.empty());
  return values.at(model.graph.output());
}

TEST(SlicerPropertyTest, JoinedSlicesEqualTheGraph) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Graph graph = RandomModel(seed).build(1 + seed % 6, 8);
    const Expression expected = evaluate_graph(graph);
    const SlicedModel model = slice_model(std::move(graph));
    model.verify();
    ASSERT_EQ(evaluate_slices(model), expected) << model.dump();
  }
}

// All divisions around one attention, tried one by one.
class AllCuts {
 public:
  AllCuts(const Graph& graph, const AttentionOp& op)
      : graph_(graph), op_(op), consumers_(consumer_lists(graph)), placed_(live_nodes(graph)) {
    const NodeSet cheap = cheap_nodes(graph);
    const std::vector<ValueId> inputs = {op.q, op.k, op.v};
    before_ = ancestors(graph, inputs);
    const NodeSet after = descendants(graph, op.node);
    for (const Node& node : graph.nodes()) {
      const auto i = static_cast<size_t>(node.id);
      if (cheap[i]) placed_[i] = false;
      if (placed_[i] && !before_[i] && !after[i]) open_.push_back(node.id);
    }
  }

  [[nodiscard]] size_t num_open() const { return open_.size(); }

  int64_t least_weight() {
    int64_t least = std::numeric_limits<int64_t>::max();
    for (uint32_t bits = 0; bits < (1U << open_.size()); ++bits) {
      for (size_t i = 0; i < open_.size(); ++i) {
        before_[static_cast<size_t>(open_[i])] = ((bits >> i) & 1U) != 0;
      }
      if (is_closed()) least = std::min(least, weight());
    }
    return least;
  }

 private:
  // No value before is computed from one after.
  [[nodiscard]] bool is_closed() const {
    return std::ranges::all_of(open_, [&](NodeId id) {
      if (!contains(before_, id)) return true;
      return std::ranges::all_of(graph_.node(id).inputs, [&](ValueId input) {
        return !contains(placed_, input) || contains(before_, input);
      });
    });
  }

  [[nodiscard]] int64_t weight() const {
    int64_t bytes = 0;
    for (const Node& node : graph_.nodes()) {
      if (!contains(placed_, node.id) || !contains(before_, node.id)) continue;
      const bool kept =
          std::ranges::any_of(consumers_[static_cast<size_t>(node.id)], [&](NodeId consumer) {
            return consumer != op_.node && contains(placed_, consumer) &&
                   !contains(before_, consumer);
          });
      if (kept) bytes += node.type.row_bytes();
    }
    return bytes;
  }

  const Graph& graph_;
  const AttentionOp& op_;
  std::vector<std::vector<NodeId>> consumers_;
  NodeSet placed_;
  NodeSet before_;
  std::vector<NodeId> open_;
};

TEST(SlicerPropertyTest, CarriesAsLittleAsAnyDivisionWould) {
  size_t num_tried = 0;
  size_t most_open = 0;
  for (uint64_t seed = 1000; seed < 1300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const SlicedModel model = slice_model(RandomModel(seed).build(1 + seed % 3, 4));
    for (size_t k = 0; k < model.attentions.size(); ++k) {
      AllCuts cuts(model.graph, model.attentions[k]);
      if (cuts.num_open() > 10) continue;
      ++num_tried;
      most_open = std::max(most_open, cuts.num_open());
      int64_t carried = 0;
      for (const ValueId value : model.slices[k].carried_out) {
        carried += model.graph.type(value).row_bytes();
      }
      ASSERT_EQ(carried, cuts.least_weight()) << "attention " << k << "\n" << model.dump();
    }
  }
  EXPECT_GT(num_tried, 300U);
  EXPECT_GE(most_open, 8U);
}

}  // namespace
}  // namespace lamina
