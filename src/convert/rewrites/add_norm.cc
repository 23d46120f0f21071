#include "convert/rewrites/add_norm.h"

#include <string>

#include "convert/node_sets.h"
#include "convert/rewrites/graph_copy.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

// For every addition the norm to fuse it with, for that norm the addition; -1 for the others.
std::vector<NodeId> find_partners(const Graph& graph) {
  const std::vector<int32_t> slices = slice_numbers(graph);
  const std::vector<int32_t> uses = use_counts(graph);
  const NodeSet contiguous = contiguous_values(graph);
  std::vector<NodeId> partners(graph.nodes().size(), -1);
  for (const Node& norm : graph.nodes()) {
    if (norm.kind != OpKind::kNorm) continue;
    const Node& sum = graph.node(norm.inputs[0]);
    const auto i = static_cast<size_t>(sum.id);
    const bool fits = sum.kind == OpKind::kAdd && sum.type.row_shape.rank() == 1 && uses[i] > 1 &&
                      partners[i] < 0;
    const int32_t slice = slices[static_cast<size_t>(norm.id)];
    if (!fits || slice < 0 || slice != slices[i]) continue;
    if (contains(contiguous, sum.id) || contains(contiguous, norm.id)) continue;
    partners[i] = norm.id;
    partners[static_cast<size_t>(norm.id)] = sum.id;
  }
  return partners;
}

}  // namespace

Rewritten AddNorm::rewrite(const Graph& graph) const {
  const std::vector<NodeId> partners = find_partners(graph);
  GraphCopy copy(graph);
  std::vector<ValueId> fused(graph.nodes().size(), -1);  // by addition, in the new graph
  int32_t num_applied = 0;
  for (const Node& node : graph.nodes()) {
    const NodeId partner = partners[static_cast<size_t>(node.id)];
    if (partner < 0) {
      copy.copy(node);
      continue;
    }
    const bool is_sum = node.kind == OpKind::kAdd;
    if (is_sum) {
      const Node& norm = graph.node(partner);
      std::vector<ValueId> inputs = {copy.at(node.inputs[0]), copy.at(node.inputs[1])};
      for (size_t i = 1; i < norm.inputs.size(); ++i) inputs.push_back(copy.at(norm.inputs[i]));
      fused[static_cast<size_t>(node.id)] =
          copy.to().add(OpKind::kAddNorm, norm.name, std::move(inputs), norm.attrs);
      ++num_applied;
    }
    const ValueId both = fused[static_cast<size_t>(is_sum ? node.id : partner)];
    const ValueId half = copy.columns("", both, {is_sum ? 0 : 1, 1});
    // Reports name what is carried: a sum goes by the norm that it feeds.
    const bool named = !is_sum || !node.name.empty();
    const std::string name = named ? node.name : graph.node(partner).name + ".sum";
    copy.put(node.id, copy.reshape(name, half, node.type.row_shape));
  }
  return {copy.finish(), num_applied};
}

}  // namespace lamina
