#include "graph/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "graph/infer_type.h"

namespace lamina {
namespace {

bool is_leaf(OpKind kind) {
  return kind == OpKind::kInput || kind == OpKind::kWeight;
}

bool has_given_type(OpKind kind) {
  return is_leaf(kind) || kind == OpKind::kReshape;
}

}  // namespace

ValueId Graph::append(Node node) {
  node.id = static_cast<NodeId>(nodes_.size());
  nodes_.push_back(std::move(node));
  return nodes_.back().id;
}

const Node* Graph::find_named(OpKind kind, std::string_view name) const {
  const auto found = std::ranges::find_if(
      nodes_, [&](const Node& node) { return node.kind == kind && node.name == name; });
  return found == nodes_.end() ? nullptr : &*found;
}

std::vector<ValueType> Graph::types_of(const Node& node) const {
  std::vector<ValueType> types;
  for (const ValueId input : node.inputs) {
    LAMINA_CHECK(input >= 0 && static_cast<size_t>(input) < nodes_.size(),
                 "an operator can only use values of its own graph");
    types.push_back(type(input));
  }
  return types;
}

ValueId Graph::add(OpKind kind, std::string name, std::vector<ValueId> inputs, NodeAttrs attrs) {
  Node node{.kind = kind,
            .name = std::move(name),
            .inputs = std::move(inputs),
            .attrs = std::move(attrs)};
  node.type = infer_type(kind, node.name, types_of(node), node.attrs);
  return append(std::move(node));
}

ValueId Graph::add_input(std::string name, ValueType type) {
  if (find_named(OpKind::kInput, name) != nullptr) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("input '{}' is there already", name));
  }
  if (type.rows == RowAxis::kFixed) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("input '{}' is {}: inputs have rows", name, to_string(type)));
  }
  return append({.kind = OpKind::kInput, .name = std::move(name), .type = type});
}

ValueId Graph::add_weight(std::string name, ValueType type, WeightSource source) {
  if (const Node* known = find_named(OpKind::kWeight, name); known != nullptr) {
    if (known->type != type) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("weight '{}' is used as {} and as {}",
                              name,
                              to_string(known->type),
                              to_string(type)));
    }
    if (std::get<WeightAttrs>(known->attrs).source != source) {
      throw Error(StatusCode::kInvalidArgument, fmt::format("weight '{}' has two sources", name));
    }
    return known->id;
  }
  if (type.rows != RowAxis::kFixed) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("weight '{}' is {}: weights have no rows", name, to_string(type)));
  }
  if (num_rows(source) * num_columns(source) != type.row_shape.num_elements()) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("weight '{}' is {}, its source is {} rows of {}",
                            name,
                            to_string(type),
                            num_rows(source),
                            num_columns(source)));
  }
  return append({.kind = OpKind::kWeight,
                 .name = std::move(name),
                 .attrs = WeightAttrs{std::move(source)},
                 .type = type});
}

ValueId Graph::add_weight(std::string name, ValueType type) {
  WeightSource source = whole_tensor(name, type.row_shape);
  return add_weight(std::move(name), type, std::move(source));
}

ValueId Graph::add_reshape(std::string name, ValueId x, Shape row_shape) {
  Node node{.kind = OpKind::kReshape, .name = std::move(name), .inputs = {x}};
  node.type = types_of(node).front();
  const ValueType from = node.type;
  node.type.row_shape = row_shape;
  const bool same_size = from.row_shape.num_elements() == row_shape.num_elements();
  if (from.rows == RowAxis::kFixed || !same_size) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("reshape '{}': {} does not become {}",
                            node.name,
                            to_string(from),
                            to_string(node.type)));
  }
  return append(std::move(node));
}

std::vector<NodeId> Graph::consumers(ValueId value) const {
  std::vector<NodeId> users;
  for (const Node& node : nodes_) {
    if (std::ranges::find(node.inputs, value) != node.inputs.end()) users.push_back(node.id);
  }
  return users;
}

std::vector<NodeId> Graph::attention_nodes() const {
  std::vector<NodeId> found;
  for (const Node& node : nodes_) {
    if (node.kind == OpKind::kAttention) found.push_back(node.id);
  }
  return found;
}

std::string Graph::broken_invariant(const Node& node) const {
  for (const ValueId input : node.inputs) {
    if (input < 0 || input >= node.id)
      return fmt::format("uses %{}, which is not before it", input);
  }
  if (is_leaf(node.kind) && !node.inputs.empty()) return "is a leaf with inputs";
  if (node.kind == OpKind::kReshape) {
    if (node.inputs.size() != 1) return "is a reshape without one input";
    ValueType reshaped = type(node.inputs[0]);
    if (reshaped.row_shape.num_elements() != node.type.row_shape.num_elements()) {
      return "is a reshape to another size";
    }
    reshaped.row_shape = node.type.row_shape;
    if (reshaped != node.type) return "is a reshape to another dtype or row axis";
  }
  if (has_given_type(node.kind)) return {};
  try {
    const ValueType inferred = infer_type(node.kind, node.name, types_of(node), node.attrs);
    if (inferred != node.type) return fmt::format("should be {}", to_string(inferred));
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

void Graph::verify() const {
  const auto fail = [](const std::string& what) { throw Error(StatusCode::kInternal, what); };
  std::set<std::pair<OpKind, std::string_view>> leaf_names;
  int32_t next_layer_idx = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    if (node.id != static_cast<NodeId>(i)) fail(fmt::format("node {} has id {}", i, node.id));
    if (std::string broken = broken_invariant(node); !broken.empty()) {
      fail(fmt::format("{}: {}", dump_node(node.id), broken));
    }
    if (is_leaf(node.kind) && !leaf_names.insert({node.kind, node.name}).second) {
      fail(fmt::format("{}: the name is taken", dump_node(node.id)));
    }
    if (node.kind != OpKind::kAttention) continue;
    const int32_t layer_idx = std::get<AttentionAttrs>(node.attrs).layer_idx;
    if (layer_idx != next_layer_idx) {
      fail(fmt::format("{}: layer index should be {}", dump_node(node.id), next_layer_idx));
    }
    ++next_layer_idx;
  }
  if (output_ < 0 || static_cast<size_t>(output_) >= nodes_.size()) {
    fail(fmt::format("output is %{}, of {} values", output_, nodes_.size()));
  }
}

}  // namespace lamina
