#include "convert/rewrites/gated_activation.h"

#include <optional>

#include "convert/node_sets.h"
#include "convert/rewrites/graph_copy.h"

namespace lamina {
namespace {

struct GatedPair {
  NodeId activation = -1;
  ValueId product = -1;
  ColumnsAttrs columns;  // of the product: gate, then up
};

class PairFinder {
 public:
  explicit PairFinder(const Graph& graph) : graph_(graph), uses_(use_counts(graph)) {}

  // The pair that `mul` joins, where it is one.
  [[nodiscard]] std::optional<GatedPair> find(const Node& mul) const {
    if (mul.kind != OpKind::kMul) return std::nullopt;
    std::optional<GatedPair> pair = find(mul.inputs[0], mul.inputs[1]);
    return pair ? pair : find(mul.inputs[1], mul.inputs[0]);
  }

 private:
  [[nodiscard]] std::optional<GatedPair> find(ValueId activated, ValueId up) const {
    const Node& activation = graph_.node(activated);
    if (activation.kind != OpKind::kActivation || uses_[static_cast<size_t>(activated)] != 1) {
      return std::nullopt;
    }
    const Node& gate_view = graph_.node(activation.inputs[0]);
    const Node& up_view = graph_.node(up);
    const bool are_columns = gate_view.kind == OpKind::kColumns &&
                             up_view.kind == OpKind::kColumns && gate_view.inputs == up_view.inputs;
    if (!are_columns || gate_view.type.row_shape.rank() != 1) return std::nullopt;
    const auto& gate_range = std::get<ColumnsAttrs>(gate_view.attrs);
    const auto& up_range = std::get<ColumnsAttrs>(up_view.attrs);
    const bool adjacent =
        up_range.begin == gate_range.begin + gate_range.count && up_range.count == gate_range.count;
    if (!adjacent) return std::nullopt;
    return GatedPair{activated, gate_view.inputs[0], {gate_range.begin, 2 * gate_range.count}};
  }

  const Graph& graph_;
  std::vector<int32_t> uses_;
};

}  // namespace

Rewritten GatedActivation::rewrite(const Graph& graph) const {
  const PairFinder finder(graph);
  GraphCopy copy(graph);
  int32_t num_applied = 0;
  for (const Node& node : graph.nodes()) {
    const std::optional<GatedPair> pair = finder.find(node);
    if (!pair) {
      copy.copy(node);
      continue;
    }
    const auto& activation = std::get<ActivationAttrs>(graph.node(pair->activation).attrs);
    const ValueId both = copy.columns("", copy.at(pair->product), pair->columns);
    const ValueId rows = copy.reshape("", both, {2, pair->columns.count / 2});
    copy.put(node.id,
             copy.to().add(OpKind::kGatedActivation,
                           node.name,
                           {rows},
                           GatedActivationAttrs{activation.activation, std::nullopt}));
    ++num_applied;
  }
  return {copy.finish(), num_applied};
}

}  // namespace lamina
