#include "convert/sliced_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>

#include "base/error.h"
#include "convert/node_sets.h"

namespace lamina {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw Error(StatusCode::kInternal, fmt::format("sliced model: {}", what));
}

void expect(bool holds, const std::string& what) {
  if (!holds) fail(what);
}

bool is_one_of(ValueId value, const std::vector<ValueId>& values) {
  return std::ranges::find(values, value) != values.end();
}

// Follows the program of one slice and knows which values it has at each point.
class SliceCheck {
 public:
  SliceCheck(const SlicedModel& model, const Slice& slice)
      : model_(model),
        slice_(slice),
        has_(model.graph.nodes().size()),
        read_(model.graph.nodes().size()) {
    for (const Node& node : model.graph.nodes()) {
      has_[static_cast<size_t>(node.id)] = is_leaf(node);
    }
    for (const ValueId value : slice.carried_in) has_[static_cast<size_t>(value)] = true;
  }

  // Returns the values that the slice makes: what it computes and what it receives.
  NodeSet run() {
    NodeSet made(has_.size());
    for (const Instruction& instruction : slice_.program) {
      const ValueId value = step(instruction);
      if (value >= 0) made[static_cast<size_t>(value)] = true;
    }
    const auto num_attentions = static_cast<int32_t>(model_.attentions.size());
    const bool sends = slice_.idx < num_attentions;
    expect(!sends || sent_kv_, fmt::format("slice {} does not send k and v", slice_.idx));
    expect(slice_.idx == 0 || received_,
           fmt::format("slice {} does not receive an attention output", slice_.idx));
    for (const ValueId value : slice_.carried_in) {
      expect(contains(read_, value),
             fmt::format("slice {} carries %{} in and does not read it", slice_.idx, value));
    }
    return made;
  }

 private:
  ValueId step(const Instruction& instruction) {
    switch (instruction.kind) {
      case InstructionKind::kCompute:
        return compute(instruction.node);
      case InstructionKind::kSendQ: {
        const AttentionOp& op = attention(instruction, slice_.idx);
        expect(!sent_q_, fmt::format("slice {} sends q twice", slice_.idx));
        read(op.q, "sends");
        sent_q_ = true;
        return -1;
      }
      case InstructionKind::kSendKv: {
        const AttentionOp& op = attention(instruction, slice_.idx);
        expect(sent_q_, fmt::format("slice {} sends k and v before q", slice_.idx));
        expect(!sent_kv_, fmt::format("slice {} sends k and v twice", slice_.idx));
        read(op.k, "sends");
        read(op.v, "sends");
        sent_kv_ = true;
        return -1;
      }
      case InstructionKind::kReceive: {
        const AttentionOp& op = attention(instruction, slice_.idx - 1);
        received_ = true;
        return produce(op.out);
      }
    }
    return -1;
  }

  ValueId compute(NodeId id) {
    const bool known = id >= 0 && static_cast<size_t>(id) < has_.size();
    expect(known, fmt::format("slice {} computes node {}, unknown", slice_.idx, id));
    const Node& node = model_.graph.node(id);
    expect(!is_leaf(node) && node.kind != OpKind::kAttention,
           fmt::format("slice {} computes {}", slice_.idx, model_.graph.dump_node(id)));
    for (const ValueId input : node.inputs) read(input, "uses");
    return produce(id);
  }

  ValueId produce(ValueId value) {
    expect(!contains(has_, value),
           fmt::format("slice {} makes %{}, which it has", slice_.idx, value));
    has_[static_cast<size_t>(value)] = true;
    return value;
  }

  void read(ValueId value, std::string_view verb) {
    expect(contains(has_, value),
           fmt::format("slice {} {} %{} without having it", slice_.idx, verb, value));
    read_[static_cast<size_t>(value)] = true;
  }

  [[nodiscard]] const AttentionOp& attention(const Instruction& instruction, int32_t wanted) const {
    const auto num_attentions = static_cast<int32_t>(model_.attentions.size());
    expect(instruction.attention_idx == wanted && wanted >= 0 && wanted < num_attentions,
           fmt::format("slice {} talks to attention {}", slice_.idx, instruction.attention_idx));
    return model_.attentions[static_cast<size_t>(wanted)];
  }

  const SlicedModel& model_;
  const Slice& slice_;
  NodeSet has_;
  NodeSet read_;
  bool sent_q_ = false;
  bool sent_kv_ = false;
  bool received_ = false;
};

void check_attentions(const SlicedModel& model) {
  const std::vector<NodeId> nodes = model.graph.attention_nodes();
  expect(model.attentions.size() == nodes.size(),
         fmt::format("{} attentions for {} in the graph", model.attentions.size(), nodes.size()));
  expect(model.slices.size() == nodes.size() + 1,
         fmt::format("{} slices around {} attentions", model.slices.size(), nodes.size()));
  for (size_t k = 0; k < nodes.size(); ++k) {
    const AttentionOp& op = model.attentions[k];
    const Node& node = model.graph.node(nodes[k]);
    std::vector<ValueId> inputs = {op.q, op.k, op.v};
    if (op.sinks) inputs.push_back(*op.sinks);
    const bool same = op.node == node.id && op.out == node.id && inputs == node.inputs &&
                      op.attrs == std::get<AttentionAttrs>(node.attrs);
    expect(same, fmt::format("attention {} is not {}", k, model.graph.dump_node(node.id)));
  }
}

// Ids from here on may index the graph. Program nodes are checked where they are computed.
void check_ids(const SlicedModel& model) {
  for (const Slice& slice : model.slices) {
    for (const std::vector<ValueId>* values : {&slice.carried_in, &slice.carried_out}) {
      for (const ValueId value : *values) {
        const bool known = value >= 0 && static_cast<size_t>(value) < model.graph.nodes().size();
        expect(known, fmt::format("slice {} carries %{}, unknown", slice.idx, value));
      }
    }
  }
}

// What is carried out of a slice is there, is read later, and is what the next slices carry in.
void check_carried(const SlicedModel& model, size_t k, const NodeSet& made) {
  const Slice& slice = model.slices[k];
  const auto sorted_once = [](const std::vector<ValueId>& values) {
    return std::ranges::adjacent_find(values, std::greater_equal<>()) == values.end();
  };
  expect(sorted_once(slice.carried_in) && sorted_once(slice.carried_out),
         fmt::format("carried values of slice {} are not in order, once each", k));
  static const std::vector<ValueId> kNothing;
  const std::vector<ValueId>& earlier = k == 0 ? kNothing : model.slices[k - 1].carried_out;
  for (const ValueId value : slice.carried_in) {
    expect(is_one_of(value, earlier),
           fmt::format("slice {} reads %{}, which slice {} does not carry", k, value, k - 1));
  }
  for (const ValueId value : slice.carried_out) {
    expect(contains(made, value) || is_one_of(value, earlier),
           fmt::format("slice {} carries %{} without having it", k, value));
    const bool needed =
        std::any_of(model.slices.begin() + static_cast<std::ptrdiff_t>(k) + 1,
                    model.slices.end(),
                    [&](const Slice& later) { return is_one_of(value, later.carried_in); });
    expect(needed, fmt::format("slice {} carries %{}, which nothing reads", k, value));
  }
}

// Every value is made exactly once, save cheap ones and ones without effect.
void check_made(const SlicedModel& model, const std::vector<int32_t>& times_made) {
  const NodeSet live = live_nodes(model.graph);
  const NodeSet cheap = cheap_nodes(model.graph);
  for (const Node& node : model.graph.nodes()) {
    if (is_leaf(node)) continue;
    const int32_t times = times_made[static_cast<size_t>(node.id)];
    expect(times > 0 || !contains(live, node.id) || contains(cheap, node.id),
           fmt::format("no slice makes {}", model.graph.dump_node(node.id)));
    expect(times <= 1 || contains(cheap, node.id),
           fmt::format("{} slices make {}", times, model.graph.dump_node(node.id)));
  }
}

}  // namespace

void SlicedModel::verify() const {
  graph.verify();
  check_attentions(*this);
  check_ids(*this);
  std::vector<int32_t> times_made(graph.nodes().size());
  NodeSet made;
  for (size_t k = 0; k < slices.size(); ++k) {
    expect(slices[k].idx == static_cast<int32_t>(k),
           fmt::format("slice {} has index {}", k, slices[k].idx));
    made = SliceCheck(*this, slices[k]).run();
    check_carried(*this, k, made);
    for (size_t i = 0; i < made.size(); ++i) times_made[i] += made[i] ? 1 : 0;
  }
  check_made(*this, times_made);
  expect(contains(made, graph.output()), "the last slice does not make the output");
}

}  // namespace lamina
