#include "convert/rewrites/dead_code.h"

#include "convert/node_sets.h"
#include "convert/rewrites/graph_copy.h"

namespace lamina {

Rewritten DeadCode::rewrite(const Graph& graph) const {
  std::vector<ValueId> wanted = graph.attention_nodes();
  wanted.push_back(graph.output());
  const NodeSet live = ancestors(graph, wanted);
  GraphCopy copy(graph);
  int32_t num_dead = 0;
  for (const Node& node : graph.nodes()) {
    const bool stays = contains(live, node.id) || node.kind == OpKind::kInput;
    if (stays) copy.copy(node);
    if (!stays) ++num_dead;
  }
  return {copy.finish(), num_dead};
}

}  // namespace lamina
