#include "convert/report/conversion_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "convert/node_sets.h"
#include "convert/report/slice_classes.h"

namespace lamina {
namespace {

// Experts that a token goes to: what the routing operator behind `routes` says, else all.
int64_t experts_per_token(const Graph& graph, ValueId routes) {
  const Node* node = &graph.node(routes);
  while (!is_leaf(*node)) {
    if (const auto* attrs = std::get_if<RouteAttrs>(&node->attrs)) return attrs->top_k;
    node = &graph.node(node->inputs[0]);
  }
  return graph.type(routes).row_shape[0];
}

int64_t product_flop(const Graph& graph, const Node& node) {
  const auto elements = [&](size_t i) {
    return graph.type(node.inputs[i]).row_shape.num_elements();
  };
  switch (node.kind) {
    case OpKind::kLinear:
    case OpKind::kHeadLinear:
      return 2 * elements(1);
    case OpKind::kExperts: {
      const int64_t num_experts = graph.type(node.inputs[3]).row_shape[0];
      return 2 * (elements(2) + elements(3)) / num_experts *
             experts_per_token(graph, node.inputs[1]);
    }
    default:
      return 0;
  }
}

// Bytes of weight input `i` that one token reads.
int64_t weight_bytes_read(const Graph& graph, const Node& node, size_t i) {
  const ValueType& type = graph.type(node.inputs[i]);
  const bool by_first_axis = node.kind == OpKind::kEmbedding || node.kind == OpKind::kExperts;
  if (!by_first_axis) return type.row_bytes();
  const int64_t wanted =
      node.kind == OpKind::kEmbedding ? 1 : experts_per_token(graph, node.inputs[1]);
  return type.row_bytes() / type.row_shape[0] * wanted;
}

// Adds up work; a weight that comes again counts once.
class Account {
 public:
  explicit Account(const SlicedModel& model) : model_(model), graph_(model.graph) {}

  void add(const Slice& slice) {
    for (const Instruction& instruction : slice.program) {
      if (instruction.kind == InstructionKind::kCompute) {
        add(graph_.node(instruction.node));
        continue;
      }
      const AttentionOp& op = model_.attentions[static_cast<size_t>(instruction.attention_idx)];
      if (instruction.kind == InstructionKind::kSendQ) work_.sent_bytes += row_bytes(op.q);
      if (instruction.kind == InstructionKind::kReceive) work_.received_bytes += row_bytes(op.out);
      if (instruction.kind != InstructionKind::kSendKv) continue;
      work_.sent_bytes += row_bytes(op.k) + (op.attrs.latent ? 0 : row_bytes(op.v));
    }
  }
  [[nodiscard]] const SliceWork& work() const { return work_; }

 private:
  [[nodiscard]] int64_t row_bytes(ValueId value) const { return graph_.type(value).row_bytes(); }

  void add(const Node& node) {
    if (is_view(node)) return;
    ++work_.num_operators;
    work_.flop += product_flop(graph_, node);
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (graph_.node(node.inputs[i]).kind != OpKind::kWeight) continue;
      work_.weight_bytes_read += weight_bytes_read(graph_, node, i);
      if (weights_.insert(node.inputs[i]).second) work_.weight_bytes += row_bytes(node.inputs[i]);
    }
  }

  const SlicedModel& model_;
  const Graph& graph_;
  std::set<ValueId> weights_;
  SliceWork work_;
};

// A view that has no name goes by that of what it is a view of.
std::string name_of(const Graph& graph, ValueId value) {
  const Node* node = &graph.node(value);
  while (node->name.empty() && is_view(*node)) node = &graph.node(node->inputs[0]);
  return fmt::format("%{} {}", value, node->name.empty() ? op_kind_name(node->kind) : node->name);
}

std::vector<CarriedFigure> carried(const Graph& graph, const std::vector<ValueId>& values) {
  std::vector<CarriedFigure> figures;
  figures.reserve(values.size());
  for (const ValueId value : values) {
    figures.push_back({name_of(graph, value), graph.type(value).row_bytes()});
  }
  return figures;
}

}  // namespace

SliceWork total_work(const SlicedModel& model) {
  Account all(model);
  for (const Slice& slice : model.slices) all.add(slice);
  return all.work();
}

ConversionReport report_conversion(const ConvertedModel& model) {
  ConversionReport report;
  report.rewrites = model.rewrites;
  const std::vector<int32_t> classes = slice_classes(model.sliced);
  for (const Slice& slice : model.sliced.slices) {
    if (classes[static_cast<size_t>(slice.idx)] != slice.idx) continue;
    Account one(model.sliced);
    one.add(slice);
    report.slices.push_back({.idx = slice.idx,
                             .count = static_cast<int32_t>(std::ranges::count(classes, slice.idx)),
                             .label = class_label(classes, slice.idx),
                             .work = one.work(),
                             .carried_in = carried(model.sliced.graph, slice.carried_in),
                             .carried_out = carried(model.sliced.graph, slice.carried_out)});
  }
  report.total = total_work(model.sliced);
  return report;
}

}  // namespace lamina
