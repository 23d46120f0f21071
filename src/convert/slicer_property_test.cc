// Slicing random graphs: joined again the slices compute what the graph does, and every cut weighs
// as little as trying all of them finds.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "convert/joined_slices.h"
#include "convert/node_sets.h"
#include "convert/random_model.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

TEST(SlicerPropertyTest, JoinedSlicesEqualTheGraph) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Graph graph = test::RandomModel(seed).build(1 + seed % 6, 8);
    const test::Expression expected = test::evaluate_graph(graph);
    const SlicedModel model = slice_model(std::move(graph));
    model.verify();
    ASSERT_EQ(test::evaluate_slices(model), expected) << model.dump();
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
    const SlicedModel model = slice_model(test::RandomModel(seed).build(1 + seed % 3, 4));
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
