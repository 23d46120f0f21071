#include "graph/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"

namespace lamina {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr ValueType kIds{DType::kI32, RowAxis::kTokens, {}};

ValueType rows(Shape row_shape, DType dtype = DType::kBF16) {
  return {dtype, RowAxis::kTokens, row_shape};
}
ValueType fixed(Shape shape, DType dtype = DType::kBF16) {
  return {dtype, RowAxis::kFixed, shape};
}

void expect_error(StatusCode code, const std::string& text, const std::function<void()>& body) {
  try {
    body();
    ADD_FAILURE() << "no error; expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

void expect_invalid(const std::string& text, const std::function<void()>& body) {
  expect_error(StatusCode::kInvalidArgument, text, body);
}

AttentionAttrs attention_attrs(int32_t layer_idx = 0) {
  return {.layer_idx = layer_idx,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 8,
          .value_dim = 8,
          .scale = 0.5F};
}

// One of each operator, in the order of OpKind where that is possible.
struct OneOfEach {
  Graph graph;
  ValueId ids = graph.add_input("token_ids", kIds);
  ValueId positions = graph.add_input("positions", kIds);
  ValueId rows_wanted = graph.add_input("logits_rows", {DType::kI32, RowAxis::kLogits, {}});
  ValueId table = graph.add_weight("embed", fixed({100, 32}));
  ValueId weight = graph.add_weight("w", fixed({32, 32}));
  ValueId narrow = graph.add_weight("narrow", fixed({16, 32}));
  ValueId bias = graph.add_weight("b", fixed({16}));
  ValueId norm = graph.add_weight("norm", fixed({32}));
  ValueId x = graph.add(OpKind::kEmbedding, "embed", {table, ids});
  ValueId y = graph.add(OpKind::kNorm, "norm", {x, norm}, NormAttrs{.eps = 1e-5F});
  ValueId angles = graph.add(
      OpKind::kRopeTable, "angles", {positions}, RopeTableAttrs{{1.0F, 0.5F, 0.25F}, 1.0F});
  ValueId q = graph.add_reshape("q", graph.add(OpKind::kLinear, "q", {y, weight}), {4, 8});
  ValueId rotated = graph.add(OpKind::kRope, "q", {q, angles});
  ValueId k = graph.add_reshape("k", graph.add(OpKind::kLinear, "k", {y, narrow, bias}), {2, 8});
  ValueId out = graph.add(OpKind::kAttention, "attn", {rotated, k, k}, attention_attrs());
  ValueId flat = graph.add_reshape("", out, {32});
  ValueId sum = graph.add(OpKind::kAdd, "", {x, flat});
  ValueId product = graph.add(
      OpKind::kMul, "", {sum, graph.add(OpKind::kActivation, "silu", {sum}, ActivationAttrs{})});
  ValueId gathered = graph.add(OpKind::kGatherRows, "last", {product, rows_wanted});
  ValueId logits = graph.add(OpKind::kLinear, "head", {gathered, table}, LinearAttrs{DType::kF32});

  OneOfEach() { graph.set_output(logits); }
};

TEST(GraphTest, InfersTheTypeOfEveryOperator) {
  const OneOfEach g;
  g.graph.verify();
  EXPECT_EQ(g.graph.type(g.x), rows({32}));
  EXPECT_EQ(g.graph.type(g.y), rows({32}));
  EXPECT_EQ(g.graph.type(g.angles), rows({6}, DType::kF32));
  EXPECT_EQ(g.graph.type(g.q), rows({4, 8}));
  EXPECT_EQ(g.graph.type(g.rotated), rows({4, 8}));
  EXPECT_EQ(g.graph.type(g.k), rows({2, 8}));
  EXPECT_EQ(g.graph.type(g.out), rows({4, 8}));
  EXPECT_EQ(g.graph.type(g.product), rows({32}));
  EXPECT_EQ(g.graph.type(g.gathered), (ValueType{DType::kBF16, RowAxis::kLogits, {32}}));
  EXPECT_EQ(g.graph.type(g.logits), (ValueType{DType::kF32, RowAxis::kLogits, {100}}));
  EXPECT_EQ(g.graph.type(g.q).row_bytes(), 64);
  EXPECT_EQ(g.graph.type(g.ids).row_bytes(), 4);
  EXPECT_EQ(g.graph.type(g.table).row_bytes(), 6400);
}

TEST(GraphTest, FindsConsumersOnceEachAndAttentions) {
  const OneOfEach g;
  EXPECT_THAT(g.graph.consumers(g.k), ElementsAre(g.out));
  EXPECT_THAT(g.graph.consumers(g.table), ElementsAre(g.x, g.logits));
  EXPECT_TRUE(g.graph.consumers(g.logits).empty());
  EXPECT_THAT(g.graph.attention_nodes(), ElementsAre(g.out));
}

TEST(GraphTest, DumpsOneLineANode) {
  const OneOfEach g;
  const std::string text = g.graph.dump();
  EXPECT_THAT(text, HasSubstr("%0 = input() [T] i32  # token_ids\n"));
  EXPECT_THAT(text, HasSubstr("%3 = weight() [100, 32] bf16  # embed\n"));
  EXPECT_THAT(text, HasSubstr("%9 = norm(%8, %7) rms eps=1e-05 [T, 32] bf16  # norm\n"));
  EXPECT_THAT(text,
              HasSubstr("rope_table(%1) inv_freq=1 to 0.25 magnitude=1 [T, 6] f32  # angles\n"));
  EXPECT_THAT(text, HasSubstr(") layer=0 scale=0.5 [T, 4, 8] bf16  # attn\n"));
  EXPECT_THAT(text, HasSubstr("= add(%8, %17) [T, 32] bf16\n"));
  EXPECT_THAT(text, HasSubstr(" out=f32 [S, 100] f32  # head\n"));
  EXPECT_THAT(text, HasSubstr("output %22\n"));
}

TEST(GraphTest, SameWeightNameIsTheSameValue) {
  Graph graph;
  const ValueId weight = graph.add_weight("w", fixed({4, 4}));
  EXPECT_EQ(graph.add_weight("w", fixed({4, 4})), weight);
  expect_invalid("weight 'w' is used as [4, 4] bf16 and as [4, 8] bf16",
                 [&] { graph.add_weight("w", fixed({4, 8})); });
  expect_invalid("weights have no rows", [&] { graph.add_weight("v", rows({4}), {}); });
  expect_invalid("weight 'w' has two sources",
                 [&] { graph.add_weight("w", fixed({4, 4}), transposed_tensor("w", {4, 4})); });
  expect_invalid("its source is 3 rows of 4", [&] {
    graph.add_weight("part", fixed({2, 4}), take_rows(whole_tensor("w", {4, 4}), {0, 3}));
  });
}

TEST(GraphTest, RefusesLeavesThatLie) {
  Graph graph;
  graph.add_input("x", rows({4}));
  expect_invalid("input 'x' is there already", [&] { graph.add_input("x", rows({4})); });
  expect_invalid("inputs have rows", [&] { graph.add_input("y", fixed({4})); });
  expect_invalid("use add_input", [&] { graph.add(OpKind::kInput, "z", {}); });
}

TEST(GraphTest, RefusesOperandsThatDoNotFit) {
  OneOfEach g;
  Graph& graph = g.graph;
  const ValueId f32 = graph.add_input("f32", rows({32}, DType::kF32));
  const ValueId wide = graph.add_input("wide", rows({64}));
  expect_invalid("embedding 'e': ids is [T, 32] bf16, not [T] i32",
                 [&] { graph.add(OpKind::kEmbedding, "e", {g.table, g.x}); });
  expect_invalid("embedding 'e': table is",
                 [&] { graph.add(OpKind::kEmbedding, "e", {g.bias, g.ids}); });
  expect_invalid("linear 'l': x is [T, 64] bf16, weight is [32, 32] bf16",
                 [&] { graph.add(OpKind::kLinear, "l", {wide, g.weight}); });
  expect_invalid("bias is [32] bf16, weight is [16, 32] bf16",
                 [&] { graph.add(OpKind::kLinear, "l", {g.x, g.narrow, g.norm}); });
  expect_invalid("weight is [32, 32] bf16, not a float32 weight of rank 2",
                 [&] { graph.add(OpKind::kLinear, "l", {f32, g.weight}); });
  expect_invalid("takes 2 to 3 inputs, got 1", [&] { graph.add(OpKind::kLinear, "l", {g.x}); });
  expect_invalid("makes float16 of bfloat16", [&] {
    graph.add(OpKind::kLinear, "l", {g.x, g.weight}, LinearAttrs{DType::kF16});
  });
  expect_invalid("norm 'n': weight is [32] bf16, not [64] bf16",
                 [&] { graph.add(OpKind::kNorm, "n", {wide, g.norm}, NormAttrs{}); });
  expect_invalid("needs NormAttrs", [&] { graph.add(OpKind::kNorm, "n", {g.x, g.norm}); });
  expect_invalid("eps is not positive",
                 [&] { graph.add(OpKind::kNorm, "n", {g.x, g.norm}, NormAttrs{.eps = 0.0F}); });
  expect_invalid("inv_freq is empty",
                 [&] { graph.add(OpKind::kRopeTable, "t", {g.positions}, RopeTableAttrs{}); });
  expect_invalid("rope 'r': x is [T, 32] bf16, table is",
                 [&] { graph.add(OpKind::kRope, "r", {g.x, g.angles}); });
  expect_invalid("add 'a': operands are [T, 32] bf16 and [T, 64] bf16",
                 [&] { graph.add(OpKind::kAdd, "a", {g.x, wide}); });
  expect_invalid("activation 's': x is [T] i32, not rows of floats",
                 [&] { graph.add(OpKind::kActivation, "s", {g.ids}, ActivationAttrs{}); });
  expect_invalid("takes no attributes",
                 [&] { graph.add(OpKind::kAdd, "s", {g.x, g.x}, NormAttrs{}); });
  expect_invalid("reshape 'r': [T, 64] bf16 does not become [T, 4, 8] bf16",
                 [&] { graph.add_reshape("r", wide, {4, 8}); });
  expect_invalid("gather_rows 'g': x is [S, 32] bf16",
                 [&] { graph.add(OpKind::kGatherRows, "g", {g.gathered, g.rows_wanted}); });
  expect_invalid("rows is [T] i32, not [S] i32",
                 [&] { graph.add(OpKind::kGatherRows, "g", {g.x, g.ids}); });
}

TEST(GraphTest, RefusesAttentionThatDoesNotFit) {
  OneOfEach g;
  const auto attend = [&](AttentionAttrs attrs, ValueId q, ValueId k) {
    return
        [&graph = g.graph, attrs, q, k] { graph.add(OpKind::kAttention, "a", {q, k, k}, attrs); };
  };
  AttentionAttrs attrs = attention_attrs(1);
  expect_invalid("the attributes say [T, 4, 8] bf16, [T, 2, 8] bf16, [T, 2, 8] bf16",
                 attend(attrs, g.q, g.q));
  attrs.window = 0;
  expect_invalid("window is 0", attend(attrs, g.q, g.k));
  attrs = attention_attrs(1);
  attrs.soft_cap = 0.0F;
  expect_invalid("soft cap is 0", attend(attrs, g.q, g.k));
  attrs = attention_attrs(1);
  attrs.alibi_slopes = {0.5F};
  expect_invalid("1 ALiBi slopes for 4 heads", attend(attrs, g.q, g.k));
  attrs = attention_attrs(1);
  attrs.latent = true;
  attrs.value_dim = 9;
  expect_invalid("values of 9 elements do not lie in keys of 8", attend(attrs, g.q, g.k));
  attrs = attention_attrs(1);
  attrs.num_kv_heads = 3;
  const ValueId three = g.graph.add_input("three", rows({3, 8}));
  expect_invalid("4 heads do not share 3 KV heads evenly", attend(attrs, g.q, three));
}

TEST(GraphTest, LatentAttentionReadsItsValuesFromTheKeys) {
  OneOfEach g;
  AttentionAttrs attrs = attention_attrs(1);
  attrs.latent = true;
  attrs.value_dim = 6;
  const ValueId sinks = g.graph.add_weight("sinks", fixed({4}));
  const ValueId out = g.graph.add(OpKind::kAttention, "a", {g.q, g.k, g.k, sinks}, attrs);
  EXPECT_EQ(g.graph.type(out), rows({4, 6}));
}

// Operators that OneOfEach has no use for.
TEST(GraphTest, InfersTheTypesOfBranchesAndExperts) {
  OneOfEach g;
  Graph& graph = g.graph;
  const auto weight = [&](const char* name, Shape shape) {
    return graph.add_weight(name, fixed(shape));
  };
  const ValueId pair =
      graph.add(OpKind::kAddNorm, "n", {g.x, g.flat, g.norm}, NormAttrs{.kind = NormKind::kLayer});
  EXPECT_EQ(graph.type(pair), rows({2, 32}));
  EXPECT_EQ(graph.type(graph.add(OpKind::kColumns, "", {pair}, ColumnsAttrs{1, 1})), rows({1, 32}));
  EXPECT_EQ(graph.type(graph.add(OpKind::kGatedActivation, "", {pair}, GatedActivationAttrs{})),
            rows({32}));
  const ValueId factor = graph.add(OpKind::kLinear, "", {g.x, weight("one", {1, 32})});
  EXPECT_EQ(graph.type(graph.add(OpKind::kMul, "", {g.x, factor})), rows({32}));
  const ValueId lifted = graph.add(OpKind::kHeadLinear, "", {g.q, weight("heads", {4, 6, 8})});
  EXPECT_EQ(graph.type(lifted), rows({4, 6}));
  EXPECT_EQ(graph.type(graph.add(OpKind::kConcat, "", {lifted, g.q})), rows({4, 14}));
  const ValueId scores =
      graph.add(OpKind::kLinear, "", {g.x, weight("router", {8, 32})}, LinearAttrs{DType::kF32});
  const ValueId routes = graph.add(OpKind::kRoute, "", {scores}, RouteAttrs{.top_k = 2});
  EXPECT_EQ(graph.type(routes), rows({8}, DType::kF32));
  const ValueId experts =
      graph.add(OpKind::kExperts,
                "",
                {g.x, routes, weight("gate_up", {8, 24, 32}), weight("down", {8, 32, 12})},
                GatedActivationAttrs{});
  EXPECT_EQ(graph.type(experts), rows({32}));
  EXPECT_EQ(graph.type(graph.add(OpKind::kAllGather, "", {g.x}, AllGatherAttrs{3})), rows({96}));
  EXPECT_EQ(graph.type(graph.add(OpKind::kAllReduce, "", {experts})), rows({32}));

  expect_invalid("cannot choose 3 of 8 experts in 1 of 4 groups", [&] {
    graph.add(OpKind::kRoute, "r", {scores}, RouteAttrs{.top_k = 3, .num_groups = 4});
  });
  expect_invalid("x, routes, gate_up, down are", [&] {
    graph.add(OpKind::kExperts,
              "e",
              {g.x, routes, weight("narrower", {8, 22, 32}), weight("down", {8, 32, 12})},
              GatedActivationAttrs{});
  });
  expect_invalid("columns [30, 34) of [T, 32] bf16",
                 [&] { graph.add(OpKind::kColumns, "c", {g.x}, ColumnsAttrs{30, 4}); });
  expect_invalid("gate_up_bias is [32] bf16, not [8, 24] bf16", [&] {
    graph.add(OpKind::kExperts,
              "e",
              {g.x, routes, weight("gate_up", {8, 24, 32}), weight("down", {8, 32, 12}), g.norm},
              GatedActivationAttrs{});
  });
}

TEST(GraphTest, VerifyFindsMissingOutputAndLayerOrder) {
  Graph graph;
  const ValueId q = graph.add_input("q", rows({4, 8}));
  const ValueId kv = graph.add_input("kv", rows({2, 8}));
  expect_error(StatusCode::kInternal, "output is %-1", [&] { graph.verify(); });
  graph.set_output(graph.add(OpKind::kAttention, "a", {q, kv, kv}, attention_attrs(1)));
  expect_error(StatusCode::kInternal, "layer index should be 0", [&] { graph.verify(); });
}

TEST(GraphDeathTest, ForeignValuesAreABug) {
  Graph graph;
  EXPECT_DEATH(graph.add(OpKind::kAdd, "s", {7, 7}), "values of its own graph");
}

}  // namespace
}  // namespace lamina
