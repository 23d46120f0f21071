#include "convert/rewrites/graph_copy.h"

#include <utility>

#include "base/check.h"

namespace lamina {

ValueId GraphCopy::at(ValueId value) {
  ValueId& made = made_[static_cast<size_t>(value)];
  if (made >= 0) return made;
  const Node& node = from_.node(value);
  LAMINA_CHECK(node.kind == OpKind::kWeight, "a value is used before the rewrite made it");
  made = to_.add_weight(node.name, node.type, std::get<WeightAttrs>(node.attrs).source);
  return made;
}

void GraphCopy::copy(const Node& node) {
  if (node.kind == OpKind::kWeight) return;
  if (node.kind == OpKind::kInput) return put(node.id, to_.add_input(node.name, node.type));
  std::vector<ValueId> inputs;
  inputs.reserve(node.inputs.size());
  for (const ValueId input : node.inputs) inputs.push_back(at(input));
  if (node.kind == OpKind::kReshape) {
    return put(node.id, to_.add_reshape(node.name, inputs[0], node.type.row_shape));
  }
  put(node.id, to_.add(node.kind, node.name, std::move(inputs), node.attrs));
}

ValueId GraphCopy::columns(std::string name, ValueId made, const ColumnsAttrs& range) {
  if (range.begin == 0 && range.count == to_.type(made).row_shape[0]) return made;
  return to_.add(OpKind::kColumns, std::move(name), {made}, range);
}

ValueId GraphCopy::reshape(std::string name, ValueId made, const Shape& row_shape) {
  if (to_.type(made).row_shape == row_shape) return made;
  return to_.add_reshape(std::move(name), made, row_shape);
}

Graph GraphCopy::finish() {
  to_.set_output(at(from_.output()));
  return std::move(to_);
}

}  // namespace lamina
