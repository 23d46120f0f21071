#include "convert/slicer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "convert/min_cut.h"
#include "convert/node_sets.h"

namespace lamina {
namespace {

// What slicing knows about a graph before it cuts.
struct SliceFacts {
  std::vector<NodeId> attentions;
  std::vector<std::vector<NodeId>> consumers;
  NodeSet cheap;
  NodeSet placed;  // nodes that stand in exactly one slice: live and not cheap
};

[[noreturn]] void refuse(const std::string& what) {
  throw Error(StatusCode::kInvalidArgument, fmt::format("cannot slice the graph: {}", what));
}

SliceFacts gather_facts(const Graph& graph) {
  SliceFacts facts{
      graph.attention_nodes(), consumer_lists(graph), cheap_nodes(graph), live_nodes(graph)};
  if (facts.attentions.empty()) refuse("it has no attention operator");
  NodeSet after_previous(graph.nodes().size(), true);
  for (const NodeId attention : facts.attentions) {
    if (!contains(facts.placed, attention)) {
      refuse(fmt::format("{} has no effect on the output", graph.dump_node(attention)));
    }
    if (!contains(after_previous, attention)) {
      refuse(fmt::format("{} does not depend on the attention before it, so they have no order",
                         graph.dump_node(attention)));
    }
    after_previous = descendants(graph, attention);
  }
  for (size_t i = 0; i < facts.placed.size(); ++i) {
    if (facts.cheap[i]) facts.placed[i] = false;
  }
  return facts;
}

// The cut around one attention operator. Neither its inputs' way into it nor its output's way out
// of it is kept by the model worker, so both are left out.
CutProblem cut_problem(const Graph& graph, const SliceFacts& facts, NodeId attention) {
  CutProblem problem{std::vector<CutValue>(graph.nodes().size()),
                     ancestors(graph, graph.node(attention).inputs),
                     descendants(graph, attention)};
  for (const Node& node : graph.nodes()) {
    const auto i = static_cast<size_t>(node.id);
    if (!facts.placed[i]) {
      problem.before[i] = problem.after[i] = false;
      continue;
    }
    if (node.id == attention) continue;
    problem.values[i].weight = node.type.row_bytes();
    for (const NodeId consumer : facts.consumers[i]) {
      if (consumer != attention && contains(facts.placed, consumer)) {
        problem.values[i].consumers.push_back(consumer);
      }
    }
  }
  return problem;
}

// For every placed node the slice it stands in; an attention operator stands where its output is
// received. -1 for the others.
std::vector<int32_t> assign_slices(const Graph& graph, const SliceFacts& facts) {
  const auto num_attentions = static_cast<int32_t>(facts.attentions.size());
  std::vector<int32_t> slice_of(graph.nodes().size(), -1);
  for (size_t i = 0; i < slice_of.size(); ++i) {
    if (facts.placed[i]) slice_of[i] = num_attentions;
  }
  // Largest minimum cuts are nested (docs/adr/0004-slicing.md), so the earliest one that holds a
  // node decides.
  for (int32_t k = num_attentions; k-- > 0;) {
    const NodeId attention = facts.attentions[static_cast<size_t>(k)];
    const std::vector<bool> before = latest_min_cut(cut_problem(graph, facts, attention));
    for (size_t i = 0; i < slice_of.size(); ++i) {
      if (facts.placed[i] && before[i]) slice_of[i] = k;
    }
  }
  return slice_of;
}

// Writes the program of one slice.
class ProgramWriter {
 public:
  ProgramWriter(const Graph& graph,
                const SliceFacts& facts,
                const std::vector<int32_t>& slice_of,
                int32_t slice_idx)
      : graph_(graph),
        facts_(facts),
        slice_of_(slice_of),
        slice_idx_(slice_idx),
        written_(graph.nodes().size()) {}

  // Free work first, while attention runs: all that the slice computes without its output. Then, in
  // the order of need, q, k and v, the rest.
  std::vector<Instruction> write() {
    const std::vector<NodeId> all = missing_for(all_values());
    if (slice_idx_ > 0) {
      const NodeSet waits = descendants(graph_, attention(slice_idx_ - 1).id);
      for (const NodeId node : all) {
        if (!contains(waits, node)) emit(node);
      }
      emit(InstructionKind::kReceive, slice_idx_ - 1);
    }
    if (sends()) {
      const std::vector<ValueId>& inputs = attention(slice_idx_).inputs;
      compute({inputs[0]});
      emit(InstructionKind::kSendQ, slice_idx_);
      compute({inputs[1], inputs[2]});
      emit(InstructionKind::kSendKv, slice_idx_);
    }
    compute(all_values());
    return std::move(program_);
  }

 private:
  [[nodiscard]] const Node& attention(int32_t idx) const {
    return graph_.node(facts_.attentions[static_cast<size_t>(idx)]);
  }
  [[nodiscard]] bool sends() const {
    return static_cast<size_t>(slice_idx_) < facts_.attentions.size();
  }
  [[nodiscard]] bool computed_here(const Node& node) const {
    return node.kind != OpKind::kAttention && slice_of_[static_cast<size_t>(node.id)] == slice_idx_;
  }

  // What the slice is there for. An attention may be sent a cheap value.
  [[nodiscard]] std::vector<ValueId> all_values() const {
    std::vector<ValueId> values;
    if (sends())
      values.assign(attention(slice_idx_).inputs.begin(), attention(slice_idx_).inputs.end());
    for (const Node& node : graph_.nodes()) {
      if (computed_here(node)) values.push_back(node.id);
    }
    return values;
  }

  void emit(InstructionKind kind, int32_t attention_idx) {
    program_.push_back({.kind = kind, .attention_idx = attention_idx});
  }
  void emit(NodeId node) {
    written_[static_cast<size_t>(node)] = true;
    program_.push_back({.kind = InstructionKind::kCompute, .node = node});
  }

  // What is still to be computed to have `values`, in the graph's order.
  [[nodiscard]] std::vector<NodeId> missing_for(std::vector<ValueId> values) const {
    NodeSet seen = written_;
    std::vector<NodeId> missing;
    while (!values.empty()) {
      const Node& node = graph_.node(values.back());
      values.pop_back();
      const bool recomputed = contains(facts_.cheap, node.id) && !is_leaf(node);
      if (contains(seen, node.id) || !(recomputed || computed_here(node))) continue;
      seen[static_cast<size_t>(node.id)] = true;
      missing.push_back(node.id);
      values.insert(values.end(), node.inputs.begin(), node.inputs.end());
    }
    std::ranges::sort(missing);
    return missing;
  }
  void compute(std::vector<ValueId> values) {
    for (const NodeId node : missing_for(std::move(values))) emit(node);
  }

  const Graph& graph_;
  const SliceFacts& facts_;
  const std::vector<int32_t>& slice_of_;
  int32_t slice_idx_;
  NodeSet written_;
  std::vector<Instruction> program_;
};

// Fills in the carried values. q, k and v are used by the slice that sends them.
void add_carried_values(const Graph& graph,
                        const SliceFacts& facts,
                        const std::vector<int32_t>& slice_of,
                        std::vector<Slice>& slices) {
  for (const Node& node : graph.nodes()) {
    const auto i = static_cast<size_t>(node.id);
    if (!facts.placed[i]) continue;
    NodeSet used_in(slices.size());
    int32_t last_use = slice_of[i];
    for (const NodeId consumer : facts.consumers[i]) {
      if (!contains(facts.placed, consumer)) continue;
      const bool sent = graph.node(consumer).kind == OpKind::kAttention;
      const int32_t use = slice_of[static_cast<size_t>(consumer)] - (sent ? 1 : 0);
      used_in[static_cast<size_t>(use)] = true;
      last_use = std::max(last_use, use);
    }
    for (int32_t k = slice_of[i]; k < last_use; ++k) {
      slices[static_cast<size_t>(k)].carried_out.push_back(node.id);
      Slice& next = slices[static_cast<size_t>(k) + 1];
      if (contains(used_in, next.idx)) next.carried_in.push_back(node.id);
    }
  }
}

AttentionOp attention_op(const Node& node) {
  return {.node = node.id,
          .q = node.inputs[0],
          .k = node.inputs[1],
          .v = node.inputs[2],
          .out = node.id,
          .sinks = node.inputs.size() > 3 ? std::optional(node.inputs[3]) : std::nullopt,
          .attrs = std::get<AttentionAttrs>(node.attrs)};
}

}  // namespace

std::vector<int32_t> slice_numbers(const Graph& graph) {
  return assign_slices(graph, gather_facts(graph));
}

SlicedModel slice_model(Graph graph) {
  graph.verify();
  const SliceFacts facts = gather_facts(graph);
  const std::vector<int32_t> slice_of = assign_slices(graph, facts);
  SlicedModel model;
  for (const NodeId attention : facts.attentions) {
    model.attentions.push_back(attention_op(graph.node(attention)));
  }
  for (int32_t k = 0; k <= static_cast<int32_t>(facts.attentions.size()); ++k) {
    model.slices.push_back({.idx = k,
                            .program = ProgramWriter(graph, facts, slice_of, k).write(),
                            .carried_in = {},
                            .carried_out = {}});
  }
  add_carried_values(graph, facts, slice_of, model.slices);
  model.graph = std::move(graph);
  model.verify();
  return model;
}

}  // namespace lamina
