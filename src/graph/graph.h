// Graph: the whole forward pass of a model as operators and values, traced from one builder
// function (model/). It knows no device, slice or network. convert/ cuts it at its attention
// operators; exec/ runs the pieces. Nodes are stored in a topological order by construction: an
// operator can only use values that exist. Each node has one output. Confined to one thread while
// it is built, immutable afterwards.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/operators.h"
#include "graph/weight_source.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace lamina {

// What axis 0 of a value counts. Known only when a step runs, but for kFixed.
enum class RowAxis : uint8_t {
  kFixed,   // a weight: the extent is in `row_shape`
  kTokens,  // T, the query tokens of the step
  kLogits,  // S, the rows whose logits are wanted
};

// Type of a value. For kTokens and kLogits `row_shape` holds the extents after axis 0; for kFixed
// the whole shape.
struct ValueType {
  DType dtype = DType::kF32;
  RowAxis rows = RowAxis::kFixed;
  Shape row_shape = {};

  // Bytes of one index of axis 0 (kTokens, kLogits) or of the whole value (kFixed).
  [[nodiscard]] int64_t row_bytes() const {
    return row_shape.num_elements() * static_cast<int64_t>(dtype_bytes(dtype));
  }
  friend bool operator==(const ValueType&, const ValueType&) = default;
};
// "[T, 8, 64] bf16"; axis 0 is T for kTokens and S for kLogits.
std::string to_string(const ValueType& type);

using NodeId = int32_t;
using ValueId = int32_t;  // equal to the producing node's id: one output a node

struct Node {
  NodeId id = 0;
  OpKind kind = OpKind::kInput;
  std::string name = {};  // for people and dumps; for kInput and kWeight it is the identity
  std::vector<ValueId> inputs = {};
  NodeAttrs attrs = {};
  ValueType type = {};  // of the output
};

class Graph {
 public:
  // Appends a node and infers its output type. Throws Error kInvalidArgument, naming the node,
  // where types do not fit.
  ValueId add(OpKind kind, std::string name, std::vector<ValueId> inputs, NodeAttrs attrs = {});
  // Throws for a name that is taken, and for a kFixed type.
  ValueId add_input(std::string name, ValueType type);
  // The same name gives the same value (tied weights); another type or source for it throws.
  ValueId add_weight(std::string name, ValueType type, WeightSource source);
  // The stored tensor of that name.
  ValueId add_weight(std::string name, ValueType type);
  // Another row shape with the same number of elements.
  ValueId add_reshape(std::string name, ValueId x, Shape row_shape);
  void set_output(ValueId value) { output_ = value; }

  [[nodiscard]] std::span<const Node> nodes() const { return nodes_; }
  [[nodiscard]] const Node& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  [[nodiscard]] const ValueType& type(ValueId id) const { return node(id).type; }
  [[nodiscard]] ValueId output() const { return output_; }
  // Nodes that use `value`, in order; a node that uses it twice stands once.
  [[nodiscard]] std::vector<NodeId> consumers(ValueId value) const;
  // Ids of the attention operators in execution order.
  [[nodiscard]] std::vector<NodeId> attention_nodes() const;

  // Throws Error kInternal where an invariant is broken: order, types, attention layer indices 0,
  // 1, 2, ..., an output.
  void verify() const;
  // One line a node: "%7 = linear(%5, %6) [T, 64] f32  # layers.0.q_proj".
  [[nodiscard]] std::string dump() const;
  // The line of one node, without a line break.
  [[nodiscard]] std::string dump_node(NodeId id) const;

 private:
  ValueId append(Node node);
  [[nodiscard]] const Node* find_named(OpKind kind, std::string_view name) const;
  [[nodiscard]] std::vector<ValueType> types_of(const Node& node) const;
  [[nodiscard]] std::string broken_invariant(const Node& node) const;

  std::vector<Node> nodes_;
  ValueId output_ = -1;
};

}  // namespace lamina
