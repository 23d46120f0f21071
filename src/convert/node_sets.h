// Sets of graph nodes that the converter reasons about: what matters for the output, what is cheap
// enough to compute again, what depends on what. Pure functions of a graph.
#pragma once

#include <span>
#include <vector>

#include "graph/graph.h"

namespace lamina {

using NodeSet = std::vector<bool>;  // indexed by NodeId

inline bool contains(const NodeSet& set, NodeId id) {
  return set[static_cast<size_t>(id)];
}

// Weights and step inputs: present in every slice, never computed.
inline bool is_leaf(const Node& node) {
  return node.kind == OpKind::kInput || node.kind == OpKind::kWeight;
}

// The same memory seen otherwise.
inline bool is_view(const Node& node) {
  return node.kind == OpKind::kReshape || node.kind == OpKind::kColumns;
}

// Nodes that `values` are computed from, themselves included.
NodeSet ancestors(const Graph& graph, std::span<const ValueId> values);
// Nodes computed from `node`, itself included.
NodeSet descendants(const Graph& graph, NodeId node);
// Nodes with effect on the output.
NodeSet live_nodes(const Graph& graph);
// Leaves, and element-wise functions of leaves alone such as rotary tables. A slice computes them
// again rather than carry them. Products and table look-ups are not cheap: they read weights, and
// tensor parallelism spreads those.
NodeSet cheap_nodes(const Graph& graph);
// How often each value is used: as an input, counting one that stands twice twice, or as the
// output.
std::vector<int32_t> use_counts(const Graph& graph);
// Values whose memory leaves the operators' hands as one piece: what ranks exchange, and the
// output, or what these are views of. No rewrite makes them a view into something wider.
NodeSet contiguous_values(const Graph& graph);
// For every value the number of attention operators that it is computed from in a row: 0 before the
// first one. An attention's own output counts it.
std::vector<int32_t> attention_levels(const Graph& graph);
// Graph::consumers of every value at once.
std::vector<std::vector<NodeId>> consumer_lists(const Graph& graph);

}  // namespace lamina
