#include "convert/node_sets.h"

#include <algorithm>

namespace lamina {
namespace {

bool is_cheap_kind(OpKind kind) {
  switch (kind) {
    case OpKind::kInput:
    case OpKind::kWeight:
    case OpKind::kNorm:
    case OpKind::kAddNorm:
    case OpKind::kAdd:
    case OpKind::kMul:
    case OpKind::kScale:
    case OpKind::kSoftCap:
    case OpKind::kActivation:
    case OpKind::kGatedActivation:
    case OpKind::kRopeTable:
    case OpKind::kRope:
    case OpKind::kRoute:
    case OpKind::kConcat:
    case OpKind::kGatherRows:
    case OpKind::kReshape:
    case OpKind::kColumns:
      return true;
    case OpKind::kEmbedding:
    case OpKind::kLinear:
    case OpKind::kHeadLinear:
    case OpKind::kExperts:
    case OpKind::kAttention:
    case OpKind::kAllReduce:
    case OpKind::kAllGather:
      return false;
  }
  return false;
}

}  // namespace

NodeSet ancestors(const Graph& graph, std::span<const ValueId> values) {
  NodeSet found(graph.nodes().size());
  for (const ValueId value : values) found[static_cast<size_t>(value)] = true;
  for (size_t i = found.size(); i-- > 0;) {  // users stand after what they use
    if (!found[i]) continue;
    for (const ValueId input : graph.nodes()[i].inputs) found[static_cast<size_t>(input)] = true;
  }
  return found;
}

NodeSet descendants(const Graph& graph, NodeId node) {
  NodeSet found(graph.nodes().size());
  found[static_cast<size_t>(node)] = true;
  for (const Node& user : graph.nodes()) {
    const bool uses =
        std::ranges::any_of(user.inputs, [&](ValueId input) { return contains(found, input); });
    if (uses) found[static_cast<size_t>(user.id)] = true;
  }
  return found;
}

NodeSet live_nodes(const Graph& graph) {
  const ValueId output = graph.output();
  return ancestors(graph, {&output, 1});
}

NodeSet cheap_nodes(const Graph& graph) {
  NodeSet cheap(graph.nodes().size());
  for (const Node& node : graph.nodes()) {
    cheap[static_cast<size_t>(node.id)] =
        is_cheap_kind(node.kind) &&
        std::ranges::all_of(node.inputs, [&](ValueId input) { return contains(cheap, input); });
  }
  return cheap;
}

std::vector<int32_t> use_counts(const Graph& graph) {
  std::vector<int32_t> counts(graph.nodes().size());
  for (const Node& node : graph.nodes()) {
    for (const ValueId input : node.inputs) ++counts[static_cast<size_t>(input)];
  }
  ++counts[static_cast<size_t>(graph.output())];
  return counts;
}

NodeSet contiguous_values(const Graph& graph) {
  NodeSet found(graph.nodes().size());
  found[static_cast<size_t>(graph.output())] = true;
  for (size_t i = found.size(); i-- > 0;) {  // users stand after what they use
    const Node& node = graph.nodes()[i];
    const bool exchanges = node.kind == OpKind::kAllReduce || node.kind == OpKind::kAllGather;
    if (exchanges || (found[i] && is_view(node))) {
      found[static_cast<size_t>(node.inputs[0])] = true;
    }
  }
  return found;
}

std::vector<int32_t> attention_levels(const Graph& graph) {
  std::vector<int32_t> levels(graph.nodes().size());
  for (const Node& node : graph.nodes()) {
    int32_t& level = levels[static_cast<size_t>(node.id)];
    for (const ValueId input : node.inputs) {
      level = std::max(level, levels[static_cast<size_t>(input)]);
    }
    if (node.kind == OpKind::kAttention) ++level;
  }
  return levels;
}

std::vector<std::vector<NodeId>> consumer_lists(const Graph& graph) {
  std::vector<std::vector<NodeId>> consumers(graph.nodes().size());
  for (const Node& node : graph.nodes()) {
    for (const ValueId input : node.inputs) {
      std::vector<NodeId>& users = consumers[static_cast<size_t>(input)];
      if (users.empty() || users.back() != node.id) users.push_back(node.id);
    }
  }
  return consumers;
}

}  // namespace lamina
