// Test support: what a graph computes, as a hash of whole expressions, and what its slices compute
// when they run one after another as an executor would run them.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "convert/node_sets.h"
#include "convert/sliced_model.h"

namespace lamina::test {

// What a value is, as a hash of the whole expression that makes it.
using Expression = size_t;

inline Expression apply(const Node& node, const std::function<Expression(ValueId)>& value_of) {
  std::string text = fmt::format("{}:{}", op_kind_name(node.kind), to_string(node.type));
  if (is_leaf(node)) text += node.name;
  for (const ValueId input : node.inputs) text += fmt::format(",{}", value_of(input));
  return std::hash<std::string>{}(text);
}

inline Expression evaluate_graph(const Graph& graph) {
  std::vector<Expression> values;
  for (const Node& node : graph.nodes()) {
    values.push_back(apply(node, [&](ValueId id) { return values[static_cast<size_t>(id)]; }));
  }
  return values[static_cast<size_t>(graph.output())];
}

// Runs the slices one after another as an executor would: a slice sees the leaves, what it carries
// in and what it makes; an attention sees what was sent to it. std::map::at throws on all else.
inline Expression evaluate_slices(const SlicedModel& model) {
  struct Sent {
    Expression q = 0, k = 0, v = 0;
  };
  std::map<int32_t, Sent> sent;
  std::map<ValueId, Expression> kept;
  std::map<ValueId, Expression> values;
  for (const Slice& slice : model.slices) {
    values.clear();
    for (const Node& node : model.graph.nodes()) {
      if (is_leaf(node)) values[node.id] = apply(node, {});
    }
    for (const ValueId value : slice.carried_in) values[value] = kept.at(value);
    for (const Instruction& instruction : slice.program) {
      const auto attention = static_cast<size_t>(std::max(instruction.attention_idx, 0));
      switch (instruction.kind) {
        case InstructionKind::kCompute:
          values[instruction.node] =
              apply(model.graph.node(instruction.node), [&](ValueId id) { return values.at(id); });
          break;
        case InstructionKind::kSendQ:
          sent[instruction.attention_idx].q = values.at(model.attentions.at(attention).q);
          break;
        case InstructionKind::kSendKv:
          sent[instruction.attention_idx].k = values.at(model.attentions.at(attention).k);
          sent[instruction.attention_idx].v = values.at(model.attentions.at(attention).v);
          break;
        case InstructionKind::kReceive: {
          const AttentionOp& op = model.attentions.at(attention);
          const Sent& input = sent.at(instruction.attention_idx);
          values[op.out] = apply(model.graph.node(op.node), [&](ValueId id) {
            if (id == op.q) return input.q;
            return id == op.k ? input.k : input.v;
          });
          break;
        }
      }
    }
    std::map<ValueId, Expression> still_kept;
    for (const ValueId value : slice.carried_out) {
      still_kept[value] = values.contains(value) ? values[value] : kept.at(value);
    }
    kept = std::move(still_kept);
  }
  EXPECT_TRUE(kept.empty());
  return values.at(model.graph.output());
}

}  // namespace lamina::test
