#include "convert/rewrites/residual_sums.h"

#include <algorithm>

#include "convert/node_sets.h"
#include "convert/rewrites/graph_copy.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

// A tree of additions whose inner sums nothing else uses.
struct SumTree {
  std::vector<ValueId> terms;  // from left to right
  std::vector<ValueId> sums;   // the additions inside, without the root
};

class SumFinder {
 public:
  explicit SumFinder(const Graph& graph)
      : graph_(graph),
        uses_(use_counts(graph)),
        levels_(attention_levels(graph)),
        inner_(uses_.size()) {
    for (const Node& node : graph.nodes()) {
      if (node.kind != OpKind::kAdd) continue;
      for (const ValueId input : node.inputs) {
        if (is_inner(input)) inner_[static_cast<size_t>(input)] = true;
      }
    }
  }

  [[nodiscard]] bool is_root(const Node& node) const {
    return node.kind == OpKind::kAdd && !contains(inner_, node.id);
  }
  [[nodiscard]] SumTree tree(const Node& root) const {
    SumTree found;
    collect(root, found);
    return found;
  }
  [[nodiscard]] int32_t level(ValueId value) const { return levels_[static_cast<size_t>(value)]; }

  // Whether for every level the terms up to it are summed by themselves: of n such terms n - 1
  // sums need nothing later.
  [[nodiscard]] bool is_sorted(const SumTree& tree) const {
    return std::ranges::all_of(tree.terms, [&](ValueId term) {
      const auto early = [&](ValueId value) { return level(value) <= level(term); };
      const auto num_terms = std::ranges::count_if(tree.terms, early);
      if (num_terms == static_cast<std::ptrdiff_t>(tree.terms.size())) return true;
      return std::ranges::count_if(tree.sums, early) == num_terms - 1;
    });
  }

 private:
  [[nodiscard]] bool is_inner(ValueId value) const {
    return graph_.node(value).kind == OpKind::kAdd && uses_[static_cast<size_t>(value)] == 1;
  }
  void collect(const Node& sum, SumTree& found) const {
    for (const ValueId input : sum.inputs) {
      if (!is_inner(input)) {
        found.terms.push_back(input);
        continue;
      }
      found.sums.push_back(input);
      collect(graph_.node(input), found);
    }
  }

  const Graph& graph_;
  std::vector<int32_t> uses_;
  std::vector<int32_t> levels_;
  NodeSet inner_;
};

// Bytes per token that all cuts together keep.
int64_t carried_bytes(const Graph& graph) {
  const SlicedModel model = slice_model(graph);
  int64_t bytes = 0;
  for (const Slice& slice : model.slices) {
    for (const ValueId value : slice.carried_out) bytes += graph.type(value).row_bytes();
  }
  return bytes;
}

}  // namespace

Rewritten ResidualSums::rewrite(const Graph& graph) const {
  const SumFinder finder(graph);
  GraphCopy copy(graph);
  NodeSet replaced(graph.nodes().size());
  std::vector<SumTree> trees(graph.nodes().size());  // of the roots to rewrite
  for (const Node& node : graph.nodes()) {
    if (!finder.is_root(node)) continue;
    SumTree tree = finder.tree(node);
    if (finder.is_sorted(tree)) continue;
    for (const ValueId sum : tree.sums) replaced[static_cast<size_t>(sum)] = true;
    trees[static_cast<size_t>(node.id)] = std::move(tree);
  }
  int32_t num_applied = 0;
  for (const Node& node : graph.nodes()) {
    std::vector<ValueId>& terms = trees[static_cast<size_t>(node.id)].terms;
    if (contains(replaced, node.id)) continue;
    if (terms.empty()) {
      copy.copy(node);
      continue;
    }
    std::ranges::stable_sort(terms, {}, [&](ValueId term) { return finder.level(term); });
    ValueId sum = copy.at(terms[0]);
    for (size_t i = 1; i < terms.size(); ++i) {
      sum = copy.to().add(OpKind::kAdd, node.name, {sum, copy.at(terms[i])});
    }
    copy.put(node.id, sum);
    ++num_applied;
  }
  Rewritten result{copy.finish(), num_applied};
  // Terms that are carried for other uses too may leave no sum that is worth carrying.
  if (num_applied > 0 && carried_bytes(result.graph) > carried_bytes(graph)) return {graph, 0};
  return result;
}

}  // namespace lamina
