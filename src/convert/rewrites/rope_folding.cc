#include "convert/rewrites/rope_folding.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "convert/node_sets.h"
#include "convert/rewrites/graph_copy.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

// kRope of kReshape of kColumns of a flat product: some of its heads, turned.
struct TurnedHeads {
  NodeId rope = -1;
  ValueId product = -1;
  ValueId table = -1;
  ColumnsAttrs columns;  // of the product
  int64_t num_heads = 0;
  int64_t head_dim = 0;
  bool interleaved = false;
  int32_t slice = -1;

  [[nodiscard]] bool is_followed_by(const TurnedHeads& next) const {
    return columns.begin + columns.count == next.columns.begin && product == next.product &&
           table == next.table && head_dim == next.head_dim && interleaved == next.interleaved &&
           slice == next.slice;
  }
};

std::vector<TurnedHeads> find_turned_heads(const Graph& graph) {
  const std::vector<int32_t> slices = slice_numbers(graph);
  const NodeSet contiguous = contiguous_values(graph);
  std::vector<TurnedHeads> found;
  for (const Node& rope : graph.nodes()) {
    if (rope.kind != OpKind::kRope || contains(contiguous, rope.id)) continue;
    const Node& heads = graph.node(rope.inputs[0]);
    if (heads.kind != OpKind::kReshape) continue;
    const Node& columns = graph.node(heads.inputs[0]);
    if (columns.kind != OpKind::kColumns || columns.type.row_shape.rank() != 1) continue;
    const auto* attrs = std::get_if<RopeAttrs>(&rope.attrs);
    found.push_back({.rope = rope.id,
                     .product = columns.inputs[0],
                     .table = rope.inputs[1],
                     .columns = std::get<ColumnsAttrs>(columns.attrs),
                     .num_heads = rope.type.row_shape[0],
                     .head_dim = rope.type.row_shape[1],
                     .interleaved = attrs != nullptr && attrs->interleaved,
                     .slice = slices[static_cast<size_t>(rope.id)]});
  }
  return found;
}

// Runs of neighbours, each of two or more.
std::vector<std::vector<TurnedHeads>> find_runs(const Graph& graph) {
  std::vector<TurnedHeads> heads = find_turned_heads(graph);
  std::ranges::stable_sort(heads, {}, [](const TurnedHeads& turned) {
    return std::tuple(turned.product, turned.table, turned.columns.begin);
  });
  std::vector<std::vector<TurnedHeads>> runs;
  for (const TurnedHeads& turned : heads) {
    if (!runs.empty() && runs.back().back().is_followed_by(turned)) {
      runs.back().push_back(turned);
    } else {
      runs.push_back({turned});
    }
  }
  std::erase_if(runs, [](const auto& run) { return run.size() < 2; });
  return runs;
}

// One rotation of all heads of a run; each rotation of the old graph becomes a view of it.
void fold(const Graph& graph, const std::vector<TurnedHeads>& run, GraphCopy& copy) {
  ColumnsAttrs all{run.front().columns.begin, 0};
  for (const TurnedHeads& turned : run) all.count += turned.columns.count;
  const int64_t head_dim = run.front().head_dim;
  const Node& first = graph.node(run.front().rope);
  const ValueId columns = copy.columns("", copy.at(run.front().product), all);
  const ValueId heads = copy.reshape("", columns, {all.count / head_dim, head_dim});
  const ValueId rotated =
      copy.to().add(OpKind::kRope, first.name, {heads, copy.at(run.front().table)}, first.attrs);
  int64_t begin = 0;
  for (const TurnedHeads& turned : run) {
    copy.put(turned.rope,
             copy.columns(graph.node(turned.rope).name, rotated, {begin, turned.num_heads}));
    begin += turned.num_heads;
  }
}

}  // namespace

Rewritten RopeFolding::rewrite(const Graph& graph) const {
  const std::vector<std::vector<TurnedHeads>> runs = find_runs(graph);
  std::map<NodeId, const std::vector<TurnedHeads>*> run_of;  // by rotation
  for (const auto& run : runs) {
    for (const TurnedHeads& turned : run) run_of[turned.rope] = &run;
  }
  GraphCopy copy(graph);
  NodeSet folded(graph.nodes().size());
  for (const Node& node : graph.nodes()) {
    const auto run = run_of.find(node.id);
    if (run == run_of.end()) {
      copy.copy(node);
    } else if (!contains(folded, node.id)) {
      fold(graph, *run->second, copy);
      for (const TurnedHeads& turned : *run->second)
        folded[static_cast<size_t>(turned.rope)] = true;
    }
  }
  return {copy.finish(), static_cast<int32_t>(runs.size())};
}

}  // namespace lamina
