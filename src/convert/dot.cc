#include "convert/dot.h"

#include <fmt/format.h>

#include "convert/node_sets.h"

namespace lamina {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

class DotWriter {
 public:
  explicit DotWriter(const SlicedModel& model)
      : model_(model), maker_(model.graph.nodes().size()), maker_slice_(maker_.size(), -1) {}

  std::string write() {
    text_ = "digraph sliced_model {\n  node [shape=box];\n";
    for (const Slice& slice : model_.slices) write_slice(slice);
    return text_ + edges_ + "}\n";
  }

 private:
  void write_slice(const Slice& slice) {
    text_ +=
        fmt::format("  subgraph cluster_{} {{\n    label=\"slice {}\";\n", slice.idx, slice.idx);
    std::string attention;  // stands outside of the box
    for (const Instruction& instruction : slice.program) {
      switch (instruction.kind) {
        case InstructionKind::kCompute:
          write_node(slice, instruction.node);
          break;
        case InstructionKind::kSendQ: {
          const AttentionOp& op = op_of(instruction);
          attention = fmt::format("  attention_{} [shape=ellipse, label=\"attention {}\"];\n",
                                  instruction.attention_idx,
                                  instruction.attention_idx);
          write_send(slice, instruction, op.q, "q");
          break;
        }
        case InstructionKind::kSendKv:
          write_send(slice, instruction, op_of(instruction).k, "k");
          write_send(slice, instruction, op_of(instruction).v, "v");
          break;
        case InstructionKind::kReceive:
          set_maker(op_of(instruction).out,
                    fmt::format("attention_{}", instruction.attention_idx),
                    slice.idx);
          break;
      }
    }
    text_ += "  }\n" + attention;
  }

  [[nodiscard]] const AttentionOp& op_of(const Instruction& instruction) const {
    return model_.attentions[static_cast<size_t>(instruction.attention_idx)];
  }

  void set_maker(ValueId value, std::string name, int32_t slice_idx) {
    maker_[static_cast<size_t>(value)] = std::move(name);
    maker_slice_[static_cast<size_t>(value)] = slice_idx;
  }

  void write_node(const Slice& slice, NodeId id) {
    const Node& node = model_.graph.node(id);
    const std::string name = fmt::format("s{}_n{}", slice.idx, id);
    text_ += fmt::format("    {} [label=\"%{} {}\\n{}\"];\n",
                         name,
                         id,
                         op_kind_name(node.kind),
                         escaped(node.name.empty() ? to_string(node.type) : node.name));
    for (const ValueId input : node.inputs) write_edge(slice, input, name, "");
    set_maker(id, name, slice.idx);
  }

  void write_send(const Slice& slice,
                  const Instruction& instruction,
                  ValueId value,
                  std::string_view role) {
    write_edge(slice, value, fmt::format("attention_{}", instruction.attention_idx), role);
  }

  void write_edge(const Slice& slice,
                  ValueId value,
                  const std::string& user,
                  std::string_view role) {
    if (is_leaf(model_.graph.node(value))) return;
    const bool carried = maker_slice_[static_cast<size_t>(value)] != slice.idx;
    std::string label(role);
    if (carried || !role.empty()) {
      const int64_t bytes = model_.graph.type(value).row_bytes();
      label = fmt::format(" [{}label=\"{}{}{} B\"]",
                          carried ? "style=dashed, " : "",
                          role,
                          role.empty() ? "" : " ",
                          bytes);
    }
    edges_ += fmt::format("  {} -> {}{};\n", maker_[static_cast<size_t>(value)], user, label);
  }

  const SlicedModel& model_;
  std::vector<std::string> maker_;    // the box that last made a value
  std::vector<int32_t> maker_slice_;  // and its slice
  std::string text_;
  std::string edges_;
};

}  // namespace

std::string dot(const SlicedModel& model) {
  return DotWriter(model).write();
}

}  // namespace lamina
