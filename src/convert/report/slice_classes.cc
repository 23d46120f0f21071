#include "convert/report/slice_classes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "convert/node_sets.h"

namespace lamina {
namespace {

// The text of a slice with values numbered as they appear.
class SliceText {
 public:
  SliceText(const SlicedModel& model, const Slice& slice) : model_(model), graph_(model.graph) {
    for (const ValueId value : slice.carried_in) number(value);
    for (const Instruction& instruction : slice.program) add(instruction);
    for (const ValueId value : slice.carried_out) text_ += fmt::format("keep {}\n", number(value));
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  // Numbers a value that is new together with its type.
  std::string number(ValueId value) {
    const auto [known, is_new] = numbers_.try_emplace(value, numbers_.size());
    std::string number = fmt::format("{}", known->second);
    if (is_new) number += ":" + to_string(graph_.type(value));
    const Node& node = graph_.node(value);
    if (is_new && node.kind == OpKind::kInput) number += node.name;
    return number;
  }

  void add(const Instruction& instruction) {
    if (instruction.kind == InstructionKind::kCompute)
      return add_node(graph_.node(instruction.node));
    const AttentionOp& op = model_.attentions[static_cast<size_t>(instruction.attention_idx)];
    switch (instruction.kind) {
      case InstructionKind::kSendQ:
        text_ += fmt::format("q {} {}\n", number(op.q), attributes(op.node));
        break;
      case InstructionKind::kSendKv:
        text_ += fmt::format("kv {} {}\n", number(op.k), number(op.v));
        break;
      case InstructionKind::kReceive:
        text_ += fmt::format("receive {} {}\n", number(op.out), attributes(op.node));
        break;
      case InstructionKind::kCompute:
        break;
    }
  }
  void add_node(const Node& node) {
    text_ += op_kind_name(node.kind);
    for (const ValueId input : node.inputs) text_ += " " + number(input);
    text_ += fmt::format(" -> {} {}\n", number(node.id), attributes(node.id));
  }

  // What the dump says between the inputs and the name, without the layer.
  [[nodiscard]] std::string attributes(NodeId id) const {
    std::string line = graph_.dump_node(id);
    line = line.substr(line.find(')') + 1);
    line = line.substr(0, line.find("  # "));
    const size_t layer = line.find("layer=");
    if (layer == std::string::npos) return line;
    return line.substr(0, layer) + line.substr(std::min(line.find(' ', layer), line.size()));
  }

  const SlicedModel& model_;
  const Graph& graph_;
  std::map<ValueId, size_t> numbers_;
  std::string text_;
};

bool is_repeated(const std::vector<int32_t>& classes, size_t begin, size_t period, size_t other) {
  if (other + period > classes.size()) return false;
  const auto at = [&](size_t i) { return classes.begin() + static_cast<std::ptrdiff_t>(i); };
  return std::equal(at(begin), at(begin + period), at(other));
}

}  // namespace

std::vector<int32_t> slice_classes(const SlicedModel& model) {
  std::map<std::string, int32_t> first_of;
  std::vector<int32_t> classes;
  classes.reserve(model.slices.size());
  for (const Slice& slice : model.slices) {
    classes.push_back(
        first_of.try_emplace(SliceText(model, slice).text(), slice.idx).first->second);
  }
  return classes;
}

std::vector<SliceRun> slice_runs(const std::vector<int32_t>& classes) {
  constexpr size_t kMaxPeriod = 8;
  std::vector<SliceRun> runs;
  for (size_t begin = 0; begin < classes.size();) {
    size_t best_period = 1;
    size_t best_repeats = 1;
    for (size_t period = 1; period <= kMaxPeriod; ++period) {
      size_t repeats = 1;
      while (is_repeated(classes, begin, period, begin + repeats * period)) ++repeats;
      const bool covers_more = repeats > 1 && repeats * period > best_repeats * best_period;
      if (!covers_more) continue;
      best_period = period;
      best_repeats = repeats;
    }
    runs.push_back({static_cast<int32_t>(begin),
                    static_cast<int32_t>(best_period),
                    static_cast<int32_t>(best_repeats)});
    begin += best_period * best_repeats;
  }
  return runs;
}

std::string class_label(const std::vector<int32_t>& classes, int32_t first) {
  constexpr size_t kShown = 3;
  std::vector<std::pair<size_t, size_t>> ranges;
  for (size_t i = 0; i < classes.size(); ++i) {
    if (classes[i] != first) continue;
    if (!ranges.empty() && ranges.back().second + 1 == i) {
      ranges.back().second = i;
    } else {
      ranges.emplace_back(i, i);
    }
  }
  std::string label;
  for (size_t i = 0; i < std::min(ranges.size(), kShown); ++i) {
    const auto [begin, end] = ranges[i];
    label += (i == 0 ? "" : ", ") +
             (begin == end ? fmt::format("{}", begin) : fmt::format("{}-{}", begin, end));
  }
  const auto count = std::ranges::count(classes, first);
  if (ranges.size() > kShown) label += ", ...";
  return count == 1 ? label : fmt::format("{} (x{})", label, count);
}

}  // namespace lamina
