// MemoryPlan::verify: runs every slice on memory that remembers who wrote where.
#include <fmt/format.h>

#include <map>

#include "base/error.h"
#include "exec/memory_plan.h"

namespace lamina {
namespace {

bool is_view(const Node& node) {
  return node.kind == OpKind::kReshape || node.kind == OpKind::kColumns;
}

// The bytes of one region: ranges that do not overlap, each with the value that was written there.
class Region {
 public:
  void write(size_t begin, size_t end, ValueId value) {
    auto next = ranges_.lower_bound(begin);
    if (next != ranges_.begin() && std::prev(next)->second.end > begin) --next;
    while (next != ranges_.end() && next->first < end) next = ranges_.erase(next);
    ranges_[begin] = {end, value};
  }
  [[nodiscard]] bool holds(size_t begin, size_t end, ValueId value) const {
    const auto found = ranges_.find(begin);
    return found != ranges_.end() && found->second.end == end && found->second.value == value;
  }

 private:
  struct Range {
    size_t end = 0;
    ValueId value = 0;
  };
  std::map<size_t, Range> ranges_;  // by beginning
};

class Replay {
 public:
  Replay(const MemoryPlan& plan, const SlicedModel& model, const StepLimits& limits)
      : plan_(plan), model_(model), graph_(model.graph), limits_(limits) {}

  void run() {
    for (const Slice& slice : model_.slices) {
      slice_idx_ = slice.idx;
      for (const ValueId value : slice.carried_in) read(value);
      for (const Instruction& instruction : slice.program) step(instruction);
      for (const ValueId value : slice.carried_out) read(value);
    }
    read(graph_.output());
  }

 private:
  void step(const Instruction& instruction) {
    if (instruction.kind == InstructionKind::kCompute) {
      const Node& node = graph_.node(instruction.node);
      for (const ValueId input : node.inputs) read(input);
      if (!is_view(node)) write(node.id);
      for (const ValueId input : node.inputs) read(input);  // still: no operator works in place
      return;
    }
    const AttentionOp& attention =
        model_.attentions[static_cast<size_t>(instruction.attention_idx)];
    if (instruction.kind == InstructionKind::kReceive) {
      read(attention.q);
      return write(attention.out);
    }
    if (instruction.kind == InstructionKind::kSendQ) return read(attention.q);
    read(attention.k);
    read(attention.v);
  }

  void write(ValueId value) {
    const ValuePlace& at = place(value);
    region(at).write(at.offset, end_of(value), value);
  }

  void read(ValueId value) {
    const Node* node = &graph_.node(value);
    if (node->kind == OpKind::kInput || node->kind == OpKind::kWeight) return;
    const ValuePlace& seen = place(value);
    size_t offset = seen.offset;
    while (is_view(*node)) {  // back to what the view was taken of
      const Node& source = graph_.node(node->inputs[0]);
      if (const auto* columns = std::get_if<ColumnsAttrs>(&node->attrs)) {
        const int64_t index_bytes = source.type.row_bytes() / source.type.row_shape[0];
        offset -= static_cast<size_t>(columns->begin * index_bytes);
      }
      node = &source;
    }
    const ValuePlace& at = place(node->id);
    const bool fits = at.region == seen.region && at.offset == offset &&
                      seen.row_stride_bytes == static_cast<size_t>(node->type.row_bytes());
    if (!fits || !region(at).holds(at.offset, end_of(node->id), node->id)) {
      fail(value, "is read where it does not lie");
    }
  }

  [[nodiscard]] const ValuePlace& place(ValueId value) const {
    const ValuePlace& at =
        plan_.places[static_cast<size_t>(slice_idx_)][static_cast<size_t>(value)];
    if (at.region == ValueRegion::kNone) fail(value, "has no place");
    return at;
  }

  [[nodiscard]] size_t end_of(ValueId value) const {
    const ValueType& type = graph_.type(value);
    const int32_t rows =
        type.rows == RowAxis::kTokens ? limits_.max_tokens : limits_.max_logits_rows;
    const ValuePlace& at = place(value);
    const size_t end = at.offset + static_cast<size_t>(type.row_bytes() * rows);
    const size_t limit =
        at.region == ValueRegion::kCarried ? plan_.carried_bytes : plan_.scratch_bytes;
    if (end > limit) fail(value, "ends outside of its region");
    return end;
  }

  Region& region(const ValuePlace& at) {
    return at.region == ValueRegion::kCarried ? carried_ : scratch_;
  }

  [[noreturn]] void fail(ValueId value, std::string_view what) const {
    throw Error(
        StatusCode::kInternal,
        fmt::format("memory plan: slice {}: {} {}", slice_idx_, graph_.dump_node(value), what));
  }

  const MemoryPlan& plan_;
  const SlicedModel& model_;
  const Graph& graph_;
  StepLimits limits_;
  Region scratch_;
  Region carried_;
  int32_t slice_idx_ = 0;
};

}  // namespace

void MemoryPlan::verify(const SlicedModel& model, const StepLimits& limits) const {
  Replay(*this, model, limits).run();
}

}  // namespace lamina
