// Test support: hand-drawn graphs in few words. Widths are multiples of 8; attention has heads of
// 8. Not a model builder: no names, no families.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace lamina::test {

class GraphSketch {
 public:
  Graph graph;
  ValueId ids = graph.add_input("token_ids", {DType::kI32, RowAxis::kTokens, {}});
  ValueId positions = graph.add_input("positions", {DType::kI32, RowAxis::kTokens, {}});

  // The token embedding, or another table of the same ids.
  ValueId embed(int64_t width) {
    return graph.add(OpKind::kEmbedding, "embed", {weight({100, width}), ids});
  }
  ValueId linear(ValueId x, int64_t width, std::string name = "") {
    return graph.add(OpKind::kLinear, std::move(name), {x, weight({width, width_of(x)})});
  }
  ValueId norm(ValueId x) {
    return graph.add(OpKind::kNorm, "", {x, weight({width_of(x)})}, NormAttrs{});
  }
  ValueId add(ValueId a, ValueId b) { return graph.add(OpKind::kAdd, "", {a, b}); }
  ValueId mul(ValueId a, ValueId b) { return graph.add(OpKind::kMul, "", {a, b}); }
  ValueId scale(ValueId x, float factor) {
    return graph.add(OpKind::kScale, "", {x}, ScaleAttrs{factor});
  }
  ValueId columns(ValueId x, int64_t begin, int64_t count) {
    return graph.add(OpKind::kColumns, "", {x}, ColumnsAttrs{begin, count});
  }
  ValueId silu(ValueId x) { return graph.add(OpKind::kActivation, "", {x}, ActivationAttrs{}); }
  ValueId rope_table() {
    return graph.add(OpKind::kRopeTable, "", {positions}, RopeTableAttrs{{1.0F, 0.1F}, 1.0F});
  }
  ValueId heads(ValueId x) { return graph.add_reshape("", x, {width_of(x) / 8, 8}); }
  ValueId flat(ValueId x) {
    return graph.add_reshape("", x, {graph.type(x).row_shape.num_elements()});
  }
  ValueId rope(ValueId x, ValueId table) { return graph.add(OpKind::kRope, "", {x, table}); }
  // Of values [T, H, 8].
  ValueId attention_of_heads(ValueId q, ValueId k, ValueId v) {
    const AttentionAttrs attrs{.layer_idx = num_attentions_++,
                               .num_heads = static_cast<int32_t>(graph.type(q).row_shape[0]),
                               .num_kv_heads = static_cast<int32_t>(graph.type(k).row_shape[0]),
                               .head_dim = 8,
                               .value_dim = 8};
    return graph.add(OpKind::kAttention, "attn", {q, k, v}, attrs);
  }
  // Of flat values [T, E] that are q, k and v already; flat again.
  ValueId attention(ValueId q, ValueId k, ValueId v) {
    const ValueId q_heads = heads(q);
    const ValueId k_heads = heads(k);
    const ValueId v_heads = heads(v);
    return flat(attention_of_heads(q_heads, k_heads, v_heads));
  }
  // With projections of x, as most models have it.
  ValueId self_attention(ValueId x) {
    const int64_t width = width_of(x);
    const ValueId q = linear(x, width, "q");
    const ValueId k = linear(x, width, "k");
    const ValueId v = linear(x, width, "v");
    return attention(q, k, v);
  }
  Graph finish(ValueId output) {
    graph.set_output(output);
    return std::move(graph);
  }

  [[nodiscard]] int64_t width_of(ValueId x) const { return graph.type(x).row_shape[-1]; }

 private:
  ValueId weight(Shape shape) {
    return graph.add_weight("w" + std::to_string(graph.nodes().size()),
                            {DType::kF32, RowAxis::kFixed, shape});
  }

  int32_t num_attentions_ = 0;
};

}  // namespace lamina::test
