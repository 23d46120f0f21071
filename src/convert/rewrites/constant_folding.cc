#include "convert/rewrites/constant_folding.h"

#include <map>

#include "convert/node_sets.h"
#include "convert/rewrites/graph_copy.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

// Operators that a factor may pass: f(c x) = c f(x).
bool passes_factor(OpKind kind) {
  return kind == OpKind::kReshape || kind == OpKind::kColumns || kind == OpKind::kRope;
}

class Folder {
 public:
  explicit Folder(const Graph& graph)
      : graph_(graph),
        copy_(graph),
        uses_(use_counts(graph)),
        slices_(slice_numbers(graph)),
        folded_(graph.nodes().size()) {
    for (const NodeId attention : graph.attention_nodes()) find_query_scale(attention);
  }

  Rewritten fold() {
    for (const Node& node : graph_.nodes()) {
      const ValueId made = fold(node);
      if (made < 0) {
        copy_.copy(node);
      } else {
        copy_.put(node.id, made);
        ++num_folded_;
      }
      if (node.kind != OpKind::kWeight) {
        new_slices_.try_emplace(copy_.at(node.id), slices_[static_cast<size_t>(node.id)]);
      }
    }
    return {copy_.finish(), num_folded_};
  }

 private:
  // The scale that only the queries of `attention` go through.
  void find_query_scale(NodeId attention) {
    ValueId value = graph_.node(attention).inputs[0];
    while (passes_factor(graph_.node(value).kind) && uses_[static_cast<size_t>(value)] == 1) {
      value = graph_.node(value).inputs[0];
    }
    const Node& scale = graph_.node(value);
    if (scale.kind != OpKind::kScale || uses_[static_cast<size_t>(value)] != 1) return;
    folded_[static_cast<size_t>(value)] = true;
    query_factor_[attention] = std::get<ScaleAttrs>(scale.attrs).factor;
  }

  // The value that stands for `node`, -1 where the node stays as it is.
  ValueId fold(const Node& node) {
    if (contains(folded_, node.id)) {
      --num_folded_;  // counted where the attention takes it over
      return copy_.at(node.inputs[0]);
    }
    switch (node.kind) {
      case OpKind::kScale:
        return fold_scale(node);
      case OpKind::kReshape:
        return fold_reshape(node);
      case OpKind::kColumns:
        return fold_columns(node);
      case OpKind::kAttention:
        return fold_query_scale(node);
      default:
        return -1;
    }
  }

  // Whether what stands for the input is on the same side of every cut as `node`. Else it may be
  // what is carried.
  [[nodiscard]] bool is_in_slice_of_input(const Node& node) {
    return slices_[static_cast<size_t>(node.id)] == new_slices_.at(copy_.at(node.inputs[0]));
  }
  // What stands for the input of `node`, and the node that made it.
  const Node& source_of(const Node& node) { return copy_.to().node(copy_.at(node.inputs[0])); }

  ValueId fold_query_scale(const Node& node) {
    const auto factor = query_factor_.find(node.id);
    if (factor == query_factor_.end()) return -1;
    std::vector<ValueId> inputs;
    inputs.reserve(node.inputs.size());
    for (const ValueId input : node.inputs) inputs.push_back(copy_.at(input));
    auto attrs = std::get<AttentionAttrs>(node.attrs);
    attrs.scale *= factor->second;
    return copy_.to().add(node.kind, node.name, std::move(inputs), attrs);
  }

  ValueId fold_scale(const Node& node) {
    const Node source = source_of(node);
    float factor = std::get<ScaleAttrs>(node.attrs).factor;
    if (factor == 1.0F) return source.id;
    if (source.kind != OpKind::kScale || !is_in_slice_of_input(node)) return -1;
    factor *= std::get<ScaleAttrs>(source.attrs).factor;
    if (factor == 1.0F) return source.inputs[0];
    return copy_.to().add(OpKind::kScale, node.name, {source.inputs[0]}, ScaleAttrs{factor});
  }

  ValueId fold_reshape(const Node& node) {
    const Node source = source_of(node);
    if (source.type.row_shape == node.type.row_shape) return source.id;
    if (source.kind != OpKind::kReshape || !is_in_slice_of_input(node)) return -1;
    return copy_.reshape(node.name, source.inputs[0], node.type.row_shape);
  }

  ValueId fold_columns(const Node& node) {
    const Node source = source_of(node);
    auto range = std::get<ColumnsAttrs>(node.attrs);
    if (range.count == source.type.row_shape[0]) return source.id;
    if (source.kind != OpKind::kColumns || !is_in_slice_of_input(node)) return -1;
    range.begin += std::get<ColumnsAttrs>(source.attrs).begin;
    return copy_.columns(node.name, source.inputs[0], range);
  }

  const Graph& graph_;
  GraphCopy copy_;
  std::vector<int32_t> uses_;
  std::vector<int32_t> slices_;
  std::map<ValueId, int32_t> new_slices_;  // by value of the new graph
  NodeSet folded_;                         // scales that attentions take over
  std::map<NodeId, float> query_factor_;   // by attention
  int32_t num_folded_ = 0;
};

}  // namespace

Rewritten ConstantFolding::rewrite(const Graph& graph) const {
  return Folder(graph).fold();
}

}  // namespace lamina
