// Sliced models as text, for goldens and `lamina convert`.
#include <fmt/format.h>

#include <string>

#include "convert/sliced_model.h"

namespace lamina {
namespace {

int64_t row_bytes(const Graph& graph, const std::vector<ValueId>& values) {
  int64_t bytes = 0;
  for (const ValueId value : values) bytes += graph.type(value).row_bytes();
  return bytes;
}

std::string dump_instruction(const SlicedModel& model, const Instruction& instruction) {
  const Graph& graph = model.graph;
  if (instruction.kind == InstructionKind::kCompute) return graph.dump_node(instruction.node);
  const AttentionOp& op = model.attentions[static_cast<size_t>(instruction.attention_idx)];
  switch (instruction.kind) {
    case InstructionKind::kSendQ:
      return fmt::format("send q %{} to attention {}: {} bytes a token",
                         op.q,
                         instruction.attention_idx,
                         row_bytes(graph, {op.q}));
    case InstructionKind::kSendKv:
      return fmt::format("send k %{}, v %{} to attention {}: {} bytes a token",
                         op.k,
                         op.v,
                         instruction.attention_idx,
                         row_bytes(graph, {op.k, op.v}));
    case InstructionKind::kReceive:
      return fmt::format("receive {}", graph.dump_node(op.out));
    case InstructionKind::kCompute:
      break;
  }
  return {};
}

std::string dump_carried(const Graph& graph,
                         std::string_view title,
                         const std::vector<ValueId>& values) {
  std::string text = fmt::format("  {}: {} bytes a token\n", title, row_bytes(graph, values));
  for (const ValueId value : values) {
    text += fmt::format("    %{} {}\n", value, to_string(graph.type(value)));
  }
  return text;
}

}  // namespace

std::string SlicedModel::dump_slice(int32_t slice_idx) const {
  const Slice& slice = slices[static_cast<size_t>(slice_idx)];
  std::string text = fmt::format("slice {}\n", slice.idx);
  text += dump_carried(graph, "carried in", slice.carried_in);
  for (const Instruction& instruction : slice.program) {
    text += fmt::format("  {}\n", dump_instruction(*this, instruction));
  }
  return text + dump_carried(graph, "carried out", slice.carried_out);
}

std::string SlicedModel::dump() const {
  std::string text;
  for (const Slice& slice : slices) text += dump_slice(slice.idx);
  return text + fmt::format("output %{}\n", graph.output());
}

}  // namespace lamina
