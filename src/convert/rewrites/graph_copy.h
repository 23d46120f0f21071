// GraphCopy: what rewrites build their result with. It walks no graph itself: the rewrite copies
// nodes one by one, in order, or puts other values in their place. Weights are copied when they are
// first used, so that one that a rewrite replaces is gone.
#pragma once

#include <vector>

#include "graph/graph.h"

namespace lamina {

class GraphCopy {
 public:
  // `from` outlives the copy.
  explicit GraphCopy(const Graph& from) : from_(from), made_(from.nodes().size(), -1) {}

  // What stands for `value` of the old graph. CHECKs that something does, but for weights.
  ValueId at(ValueId value);
  // From here on `made` stands for `value`.
  void put(ValueId value, ValueId made) { made_[static_cast<size_t>(value)] = made; }
  // Appends a node of the old graph with the values that stand for its inputs; a weight waits.
  void copy(const Node& node);
  // `count` of axis 1 of a value of the new graph, or the value itself where that is all of it.
  ValueId columns(std::string name, ValueId made, const ColumnsAttrs& range);
  // The same elements in another shape, or the value itself.
  ValueId reshape(std::string name, ValueId made, const Shape& row_shape);

  // The new graph as far as it is built.
  [[nodiscard]] Graph& to() { return to_; }
  // Sets the output and moves the new graph out.
  [[nodiscard]] Graph finish();

 private:
  const Graph& from_;
  Graph to_;
  std::vector<ValueId> made_;  // by value of the old graph; -1: not yet
};

}  // namespace lamina
