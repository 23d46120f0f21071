#include "convert/rewriter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "convert/converter.h"
#include "convert/graph_interpreter.h"
#include "convert/graph_sketch.h"
#include "convert/node_sets.h"

namespace lamina {
namespace {

using test::GraphSketch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

int64_t count(const Graph& graph, OpKind kind) {
  return std::ranges::count(graph.nodes(), kind, &Node::kind);
}
int32_t applied(const RewrittenGraph& result, std::string_view name) {
  const auto entry = std::ranges::find(result.report.entries, name, &RewriteReport::Entry::name);
  return entry == result.report.entries.end() ? -1 : entry->num_applied;
}
void expect_same_result(const Graph& a, const Graph& b) {
  const std::vector<double> expected = test::GraphInterpreter(a).run();
  const std::vector<double> found = test::GraphInterpreter(b).run();
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-9);
}

// Estimates fuse q, or not, whatever the shape.
RewriteOptions q_fused() {
  RewriteOptions options;
  options.workload.context_len = 1;
  options.rates.launch_s = 1.0;
  return options;
}
RewriteOptions q_split() {
  RewriteOptions options;
  options.rates.launch_s = 0.0;
  options.workload.context_len = 1'000'000;
  return options;
}

// A pre-norm block with rotary attention of 4 heads over 2 KV heads and a gated MLP, twice.
Graph two_layers() {
  GraphSketch g;
  const ValueId table = g.rope_table();
  ValueId x = g.embed(32);
  for (int layer = 0; layer < 2; ++layer) {
    const ValueId in = g.norm(x);
    const ValueId q = g.rope(g.heads(g.linear(in, 32, "q")), table);
    const ValueId k = g.rope(g.heads(g.linear(in, 16, "k")), table);
    const ValueId v = g.heads(g.linear(in, 16, "v"));
    x = g.add(x, g.linear(g.flat(g.attention_of_heads(q, k, v)), 32, "o"));
    const ValueId mlp_in = g.norm(x);
    const ValueId up = g.linear(mlp_in, 64, "up");
    const ValueId gate = g.linear(mlp_in, 64, "gate");
    x = g.add(x, g.linear(g.mul(up, g.silu(gate)), 32, "down"));
  }
  return g.finish(g.linear(g.norm(x), 100, "head"));
}

TEST(RewriterTest, FusesADecoderBlock) {
  const Graph graph = two_layers();
  const RewrittenGraph result = rewrite_graph(graph, q_fused());
  EXPECT_EQ(applied(result, "fused-products"), 4);
  EXPECT_EQ(applied(result, "gated-activation"), 2);
  EXPECT_EQ(applied(result, "rope-folding"), 2);
  EXPECT_EQ(applied(result, "add-norm"), 3);  // the last sum is needed normalised only
  EXPECT_EQ(count(result.graph, OpKind::kLinear), 2 * 4 + 1);
  EXPECT_EQ(count(result.graph, OpKind::kRope), 2);
  EXPECT_EQ(count(result.graph, OpKind::kMul) + count(result.graph, OpKind::kActivation), 0);
  expect_same_result(graph, result.graph);
}

TEST(RewriterTest, FusedWeightsAreStackedInTheOrderOfTheColumns) {
  const RewrittenGraph result = rewrite_graph(two_layers(), q_split());
  EXPECT_EQ(count(result.graph, OpKind::kLinear), 2 * 5 + 1);
  EXPECT_EQ(applied(result, "rope-folding"), 0);
  const auto gate_up = std::ranges::find(result.graph.nodes(), std::string("gate+up"), &Node::name);
  ASSERT_NE(gate_up, result.graph.nodes().end());
  const Node& weight = result.graph.node(gate_up->inputs[1]);
  EXPECT_EQ(weight.type.row_shape, (Shape{128, 32}));
  EXPECT_THAT(std::get<WeightAttrs>(weight.attrs).source, SizeIs(2));
  // Weights that were replaced are gone, even without dead code removal.
  for (const Node& node : result.graph.nodes()) {
    if (node.kind != OpKind::kWeight) continue;
    EXPECT_FALSE(result.graph.consumers(node.id).empty()) << node.name;
  }
  expect_same_result(two_layers(), result.graph);
}

TEST(RewriterTest, RecordsTheDecisionOnceForEachShape) {
  const RewrittenGraph fused = rewrite_graph(two_layers(), q_fused());
  ASSERT_THAT(fused.report.projections, SizeIs(1));
  const ProjectionDecision& decision = fused.report.projections[0];
  EXPECT_EQ(decision.num_attentions, 2);
  EXPECT_TRUE(decision.estimate.fuses());
  EXPECT_EQ(decision.shape,
            (ProjectionShape{.in_width = 32,
                             .q_width = 32,
                             .kv_width = 32,
                             .element_bytes = 4,
                             .q_bytes = 128,
                             .kv_bytes = 128}));
  EXPECT_FALSE(rewrite_graph(two_layers(), q_split()).report.projections[0].estimate.fuses());
}

// A parallel block: the MLP has the projections' input, but must not wait with them or delay them.
TEST(RewriterTest, DoesNotFuseWhatIsNeededAtDifferentTimes) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId in = g.norm(x);
  const ValueId up = g.linear(in, 64, "up");
  const ValueId attn = g.self_attention(in);
  const ValueId mlp = g.linear(g.silu(up), 16, "down");
  const RewrittenGraph result = rewrite_graph(g.finish(g.add(g.add(x, attn), mlp)), q_split());
  EXPECT_EQ(applied(result, "fused-products"), 1);  // k with v
  EXPECT_EQ(count(result.graph, OpKind::kLinear), 4);
}

TEST(RewriterTest, DoesNotFuseSharedWeightsOrWhatRanksExchange) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId a = g.linear(x, 16, "a");
  const ValueId b = g.graph.add(OpKind::kAllReduce, "b", {g.linear(x, 16, "b")});
  const ValueId weight = g.graph.node(a).inputs[1];
  const ValueId c = g.graph.add(OpKind::kLinear, "c", {b, weight});
  const RewrittenGraph result = rewrite_graph(g.finish(g.add(g.add(a, c), g.self_attention(b))));
  for (const Node& node : result.graph.nodes()) {
    if (node.kind != OpKind::kLinear) continue;
    EXPECT_TRUE(node.name.size() == 1 || node.name == "k+v" || node.name == "q+k+v") << node.name;
  }
}

TEST(RewriterTest, FoldsScalesAndViews) {
  GraphSketch g;
  const ValueId x = g.scale(g.embed(16), 1.0F);
  const ValueId q = g.scale(g.scale(g.heads(g.linear(x, 16)), 0.5F), 0.5F);
  const ValueId kv = g.heads(g.linear(x, 8));
  const ValueId attn = g.attention_of_heads(q, kv, kv);
  const ValueId half = g.columns(g.columns(g.flat(g.heads(g.flat(attn))), 0, 16), 8, 8);
  const ValueId out = g.scale(g.scale(half, 2.0F), 3.0F);
  const Graph graph = g.finish(g.linear(out, 24));
  const RewrittenGraph result = rewrite_graph(graph);
  EXPECT_EQ(count(result.graph, OpKind::kScale), 1);
  EXPECT_EQ(count(result.graph, OpKind::kColumns), 1);
  EXPECT_EQ(count(result.graph, OpKind::kReshape), 3);  // heads of q, of kv, and flat again
  const Node& attention = result.graph.node(result.graph.attention_nodes().front());
  EXPECT_FLOAT_EQ(std::get<AttentionAttrs>(attention.attrs).scale, 0.25F);
  expect_same_result(graph, result.graph);
}

// A scale that others read too, or that is the keys as well, stays.
TEST(RewriterTest, KeepsAScaleThatIsNotTheQueriesAlone) {
  GraphSketch g;
  const ValueId heads = g.scale(g.heads(g.embed(16)), 0.5F);
  const Graph graph = g.finish(g.flat(g.attention_of_heads(heads, heads, heads)));
  const RewrittenGraph result = rewrite_graph(graph);
  EXPECT_EQ(count(result.graph, OpKind::kScale), 1);
  expect_same_result(graph, result.graph);
}

// However a builder associates x + attn + mlp, one vector is carried.
TEST(RewriterTest, AParallelBlockCarriesOneVector) {
  for (const int order : {0, 1, 2, 3}) {
    SCOPED_TRACE(order);
    GraphSketch g;
    ValueId x = g.embed(16);
    for (int layer = 0; layer < 3; ++layer) {
      const ValueId in = g.norm(x);
      const ValueId attn = g.linear(g.self_attention(in), 16);
      const ValueId mlp = g.linear(g.silu(g.linear(in, 64)), 16);
      if (order == 0) x = g.add(g.add(x, attn), mlp);
      if (order == 1) x = g.add(x, g.add(attn, mlp));
      if (order == 2) x = g.add(g.add(mlp, attn), x);
      if (order == 3) x = g.add(g.add(x, mlp), attn);
    }
    const Graph graph = g.finish(g.linear(x, 24));
    const ConvertedModel model = convert_model(graph);
    for (size_t k = 0; k < 3; ++k) {
      const std::vector<ValueId>& carried = model.sliced.slices[k].carried_out;
      ASSERT_THAT(carried, SizeIs(1));
      EXPECT_EQ(model.sliced.graph.type(carried[0]).row_bytes(), 64);
    }
    expect_same_result(graph, model.sliced.graph);
    const ConvertedModel as_built = convert_model(graph, {.disabled = {"residual-sums"}});
    EXPECT_THAT(as_built.sliced.slices[0].carried_out, SizeIs(order == 3 ? 1 : 2));
  }
}

TEST(RewriterTest, ASumNeededNormalisedOnlyIsNotFused) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId sum = g.add(x, g.self_attention(x));
  const RewrittenGraph result = rewrite_graph(g.finish(g.linear(g.norm(sum), 24)));
  EXPECT_EQ(count(result.graph, OpKind::kAddNorm), 0);
}

TEST(RewriterTest, LeavesOutDeadCodeButNoAttention) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  g.silu(g.linear(x, 64));
  const RewrittenGraph result = rewrite_graph(g.finish(g.self_attention(x)));
  EXPECT_GT(applied(result, "dead-code"), 0);
  EXPECT_EQ(count(result.graph, OpKind::kActivation), 0);
}

TEST(RewriterTest, AnyRewriteCanBeSwitchedOff) {
  const Graph graph = two_layers();
  for (const std::string_view name : rewrite_names()) {
    const RewrittenGraph result = rewrite_graph(graph, {.disabled = {std::string(name)}});
    const auto entry = std::ranges::find(result.report.entries, name, &RewriteReport::Entry::name);
    ASSERT_NE(entry, result.report.entries.end());
    EXPECT_TRUE(entry->disabled);
    EXPECT_EQ(entry->num_applied, 0);
    expect_same_result(graph, result.graph);
  }
  RewriteOptions none;
  for (const std::string_view name : rewrite_names()) none.disabled.emplace_back(name);
  EXPECT_EQ(rewrite_graph(graph, none).graph.dump(), graph.dump());
}

TEST(RewriterTest, RefusesANameThatNoRewriteHas) {
  try {
    static_cast<void>(rewrite_graph(two_layers(), {.disabled = {"magic"}}));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("no rewrite is called 'magic'; there are dead-code, "));
  }
}

void expect_broken(const Graph& before, const Graph& after, const std::string& text) {
  try {
    check_rewritten("test", before, after);
    ADD_FAILURE() << "not found: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInternal);
    EXPECT_THAT(error.what(), HasSubstr("rewrite test: " + text));
  }
}

TEST(RewriterTest, FindsWhatARewriteBroke) {
  const auto one_layer = [](int64_t out_width, int num_attentions) {
    GraphSketch g;
    ValueId x = g.embed(16);
    for (int i = 0; i < num_attentions; ++i) x = g.self_attention(x);
    return g.finish(g.linear(x, out_width));
  };
  const Graph graph = one_layer(8, 1);
  EXPECT_NO_THROW(check_rewritten("test", graph, graph));
  expect_broken(graph, one_layer(16, 1), "the output was [T, 8] f32 and is [T, 16] f32");
  expect_broken(graph, one_layer(8, 2), "the attention operators are not the same");
  expect_broken(graph, Graph(), "output is %-1");
}

}  // namespace
}  // namespace lamina
