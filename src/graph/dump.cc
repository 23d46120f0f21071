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
    case DType::kI8:
      return "i8";
    case DType::kF8E4M3:
      return "f8e4m3";
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
  std::string operator()(const WeightAttrs& attrs) const {
    return is_whole_tensor(attrs.source) ? "" : " " + to_string(attrs.source);
  }
  std::string operator()(const EmbeddingAttrs& attrs) const {
    return fmt::format(" first_id={}", attrs.first_id);
  }
  std::string operator()(const NormAttrs& attrs) const {
    const std::string offset =
        attrs.weight_offset == 0.0F ? "" : fmt::format(" weight_offset={}", attrs.weight_offset);
    return fmt::format(
        " {} eps={}{}", attrs.kind == NormKind::kRms ? "rms" : "layer", attrs.eps, offset);
  }
  std::string operator()(const ActivationAttrs& attrs) const {
    return fmt::format(" {}", activation_name(attrs.activation));
  }
  std::string operator()(const GatedActivationAttrs& attrs) const {
    const std::string limit = attrs.limit ? fmt::format(" limit={}", *attrs.limit) : "";
    return fmt::format(" {}{}", activation_name(attrs.activation), limit);
  }
  std::string operator()(const ScaleAttrs& attrs) const {
    return fmt::format(" factor={}", attrs.factor);
  }
  std::string operator()(const SoftCapAttrs& attrs) const {
    return fmt::format(" cap={}", attrs.cap);
  }
  std::string operator()(const RopeTableAttrs& attrs) const {
    return fmt::format(" inv_freq={} to {} magnitude={}",
                       attrs.inv_freq.front(),
                       attrs.inv_freq.back(),
                       attrs.magnitude);
  }
  std::string operator()(const RopeAttrs& attrs) const {
    return attrs.interleaved ? " interleaved" : "";
  }
  std::string operator()(const RouteAttrs& attrs) const {
    std::string text = fmt::format(" top_k={} {}{}",
                                   attrs.top_k,
                                   attrs.scoring == RouteScoring::kSoftmax ? "softmax" : "sigmoid",
                                   attrs.renormalize ? " renormalize" : "");
    if (attrs.scale != 1.0F) text += fmt::format(" scale={}", attrs.scale);
    if (attrs.num_groups > 1) {
      text += fmt::format(" groups={} of {}", attrs.top_groups, attrs.num_groups);
    }
    return text;
  }
  std::string operator()(const AttentionAttrs& attrs) const {
    std::string text = fmt::format(" layer={} scale={}", attrs.layer_idx, attrs.scale);
    if (attrs.latent) text += " latent";
    if (attrs.soft_cap) text += fmt::format(" soft_cap={}", *attrs.soft_cap);
    if (attrs.window) text += fmt::format(" window={}", *attrs.window);
    if (!attrs.alibi_slopes.empty()) {
      text += fmt::format(" alibi={} to {}", attrs.alibi_slopes.front(), attrs.alibi_slopes.back());
    }
    return text;
  }
  std::string operator()(const ColumnsAttrs& attrs) const {
    return fmt::format(" {}:{}", attrs.begin, attrs.begin + attrs.count);
  }
  std::string operator()(const AllGatherAttrs& attrs) const {
    return fmt::format(" ranks={}", attrs.num_ranks);
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
