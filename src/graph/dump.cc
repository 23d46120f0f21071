// Graphs as text: the form that goldens, `lamina convert` and error messages share.
#include <fmt/format.h>

#include <string>

#include "graph/graph.h"

namespace lamina {
namespace {

std::string_view short_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kI32:
      return "i32";
    case DType::kU8:
      return "u8";
  }
  return "unknown";
}

std::string_view row_letter(RowAxis rows) {
  switch (rows) {
    case RowAxis::kFixed:
      return "";
    case RowAxis::kTokens:
      return "T";
    case RowAxis::kLogits:
      return "S";
  }
  return "unknown";
}

struct AttrsText {
  std::string operator()(std::monostate) const { return {}; }
  std::string operator()(const LinearAttrs& attrs) const {
    return fmt::format(" out={}", short_name(attrs.out_dtype));
  }
  std::string operator()(const RmsNormAttrs& attrs) const {
    return fmt::format(" eps={}", attrs.eps);
  }
  std::string operator()(const RopeTableAttrs& attrs) const {
    return fmt::format(" inv_freq={} to {} magnitude={}",
                       attrs.inv_freq.front(),
                       attrs.inv_freq.back(),
                       attrs.magnitude);
  }
  std::string operator()(const AttentionAttrs& attrs) const {
    const std::string window = attrs.window ? fmt::format(" window={}", *attrs.window) : "";
    return fmt::format(" layer={} scale={}{}", attrs.layer_idx, attrs.scale, window);
  }
};

}  // namespace

std::string to_string(const ValueType& type) {
  std::string extents(row_letter(type.rows));
  for (int axis = 0; axis < type.row_shape.rank(); ++axis) {
    extents += fmt::format("{}{}", extents.empty() ? "" : ", ", type.row_shape[axis]);
  }
  return fmt::format("[{}] {}", extents, short_name(type.dtype));
}

std::string Graph::dump_node(NodeId id) const {
  const Node& shown = node(id);
  std::string inputs;
  for (const ValueId input : shown.inputs) {
    inputs += fmt::format("{}%{}", inputs.empty() ? "" : ", ", input);
  }
  return fmt::format("%{} = {}({}){} {}{}{}",
                     id,
                     op_kind_name(shown.kind),
                     inputs,
                     std::visit(AttrsText{}, shown.attrs),
                     to_string(shown.type),
                     shown.name.empty() ? "" : "  # ",
                     shown.name);
}

std::string Graph::dump() const {
  std::string text;
  for (const Node& shown : nodes_) text += dump_node(shown.id) + '\n';
  return text + fmt::format("output %{}\n", output_);
}

}  // namespace lamina
