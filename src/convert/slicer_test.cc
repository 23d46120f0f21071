#include "convert/slicer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "convert/graph_sketch.h"

namespace lamina {
namespace {

using test::GraphSketch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Place of an instruction in a slice's program; fails the test where it is missing.
std::ptrdiff_t place_of(const Slice& slice, const Instruction& wanted) {
  const auto found = std::ranges::find(slice.program, wanted);
  EXPECT_NE(found, slice.program.end());
  return found - slice.program.begin();
}
std::ptrdiff_t place_of_node(const Slice& slice, NodeId node) {
  return place_of(slice, {.kind = InstructionKind::kCompute, .node = node});
}
std::ptrdiff_t place_of(const Slice& slice, InstructionKind kind, int32_t attention_idx) {
  return place_of(slice, {.kind = kind, .attention_idx = attention_idx});
}

bool computes(const Slice& slice, NodeId node) {
  return std::ranges::find(slice.program,
                           Instruction{.kind = InstructionKind::kCompute, .node = node}) !=
         slice.program.end();
}

TEST(SlicerTest, SequentialResidualCarriesTheResidualAlone) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId y = g.add(x, g.self_attention(g.norm(x)));
  const ValueId z = g.add(y, g.linear(g.silu(g.linear(g.norm(y), 32)), 16));
  const ValueId last = g.add(z, g.self_attention(g.norm(z)));
  const SlicedModel model = slice_model(g.finish(g.linear(last, 100)));
  ASSERT_EQ(model.slices.size(), 3U);
  EXPECT_THAT(model.slices[0].carried_in, IsEmpty());
  EXPECT_THAT(model.slices[0].carried_out, ElementsAre(x));
  EXPECT_THAT(model.slices[1].carried_in, ElementsAre(x));
  EXPECT_THAT(model.slices[1].carried_out, ElementsAre(z));
  EXPECT_THAT(model.slices[2].carried_in, ElementsAre(z));
  EXPECT_THAT(model.slices[2].carried_out, IsEmpty());
  EXPECT_TRUE(computes(model.slices[1], y));
}

// x + attn(ln x) + mlp(ln x), the branch without attention added first.
TEST(SlicerTest, ParallelResidualFinishesItsMlpBeforeTheReceive) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId normed = g.norm(x);
  const ValueId attn = g.self_attention(normed);
  const ValueId mlp = g.linear(g.silu(g.linear(normed, 64)), 16);
  const ValueId sum = g.add(x, mlp);
  const ValueId out = g.add(sum, g.linear(attn, 16));
  const SlicedModel model = slice_model(g.finish(out));
  ASSERT_EQ(model.slices.size(), 2U);
  const Slice& first = model.slices[0];
  EXPECT_THAT(first.carried_out, ElementsAre(sum));
  // Independent work waits until q, k and v have left.
  EXPECT_GT(place_of_node(first, mlp), place_of(first, InstructionKind::kSendKv, 0));
  EXPECT_GT(place_of_node(first, sum), place_of_node(first, mlp));
}

// The same sum in the other order has to keep two vectors whatever is cut.
TEST(SlicerTest, ParallelResidualAddedLastCarriesBothTerms) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId normed = g.norm(x);
  const ValueId partial = g.add(x, g.self_attention(normed));
  const ValueId mlp = g.linear(g.silu(g.linear(normed, 64)), 16);
  const SlicedModel model = slice_model(g.finish(g.add(partial, mlp)));
  EXPECT_THAT(model.slices[0].carried_out, ElementsAre(x, mlp));
}

TEST(SlicerTest, AValueUsedTwiceCountsOnce) {
  GraphSketch g;
  const ValueId x = g.embed(24);
  const ValueId attn = g.self_attention(g.linear(x, 8));
  // Edge by edge x would weigh twice 24, and two products of width 16 would seem cheaper.
  const ValueId left = g.linear(x, 16);
  const ValueId right = g.linear(x, 16);
  const ValueId wide = g.linear(attn, 16);
  const ValueId out = g.add(g.add(wide, left), g.silu(g.add(wide, right)));
  const SlicedModel model = slice_model(g.finish(out));
  EXPECT_THAT(model.slices[0].carried_out, ElementsAre(x));
  EXPECT_FALSE(computes(model.slices[0], left));
}

TEST(SlicerTest, ATieGoesToTheLatestCut) {
  GraphSketch g;
  const ValueId x = g.embed(8);
  const ValueId attn = g.self_attention(x);
  const ValueId chain = g.linear(g.silu(g.linear(x, 64)), 8);  // as heavy as x
  const SlicedModel model = slice_model(g.finish(g.add(chain, attn)));
  EXPECT_THAT(model.slices[0].carried_out, ElementsAre(chain));
}

TEST(SlicerTest, QLeavesBeforeAnyWorkThatItDoesNotNeed) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId k = g.linear(x, 16);  // traced before q
  const ValueId v = g.linear(x, 16);
  const ValueId q = g.linear(x, 16);
  const ValueId out = g.attention(q, k, v);
  const SlicedModel model = slice_model(g.finish(out));
  const Slice& first = model.slices[0];
  const std::ptrdiff_t sent_q = place_of(first, InstructionKind::kSendQ, 0);
  EXPECT_LT(place_of_node(first, q), sent_q);
  EXPECT_GT(place_of_node(first, k), sent_q);
  EXPECT_GT(place_of_node(first, v), sent_q);
  EXPECT_EQ(first.program.back(),
            (Instruction{.kind = InstructionKind::kSendKv, .attention_idx = 0}));
  EXPECT_EQ(model.slices[1].program.front(),
            (Instruction{.kind = InstructionKind::kReceive, .attention_idx = 0}));
}

// Rotary tables, and a branch that is wider than what it comes from and hence not carried.
TEST(SlicerTest, WorkThatNeedsNoAttentionOutputStandsBeforeTheReceive) {
  GraphSketch g;
  const ValueId table = g.rope_table();
  const ValueId x = g.embed(8);
  const ValueId attn = g.self_attention(x);
  const ValueId wide = g.silu(g.linear(x, 64));
  const ValueId y = g.linear(g.add(wide, g.linear(attn, 64)), 16);
  const ValueId heads = g.rope(g.heads(g.linear(y, 16)), table);
  const SlicedModel model = slice_model(g.finish(g.attention_of_heads(heads, heads, heads)));
  EXPECT_THAT(model.slices[0].carried_out, ElementsAre(x));
  const Slice& second = model.slices[1];
  const std::ptrdiff_t received = place_of(second, InstructionKind::kReceive, 0);
  EXPECT_LT(place_of_node(second, table), received);
  EXPECT_LT(place_of_node(second, wide), received);
  EXPECT_GT(place_of_node(second, y), received);
}

// q leaves as soon as the product that makes q, k and v is there and q is turned.
TEST(SlicerTest, AFusedProductSendsQBeforeKIsTurned) {
  GraphSketch g;
  const ValueId table = g.rope_table();
  const ValueId x = g.embed(16);
  const ValueId qkv = g.linear(x, 32);
  const ValueId k = g.rope(g.heads(g.columns(qkv, 16, 8)), table);
  const ValueId v = g.heads(g.columns(qkv, 24, 8));
  const ValueId q = g.rope(g.heads(g.columns(qkv, 0, 16)), table);
  const SlicedModel model = slice_model(g.finish(g.attention_of_heads(q, k, v)));
  const Slice& first = model.slices[0];
  const std::ptrdiff_t sent_q = place_of(first, InstructionKind::kSendQ, 0);
  EXPECT_EQ(place_of_node(first, q) + 1, sent_q);
  EXPECT_GT(place_of_node(first, k), sent_q);
  EXPECT_GT(place_of_node(first, v), sent_q);
}

TEST(SlicerTest, RecomputesARotaryTableInEverySliceThatRotates) {
  GraphSketch g;
  const ValueId table = g.rope_table();
  ValueId x = g.embed(16);
  for (int layer = 0; layer < 3; ++layer) {
    const ValueId q = g.rope(g.heads(g.linear(x, 16)), table);
    const ValueId k = g.rope(g.heads(g.linear(x, 16)), table);
    x = g.add(x, g.flat(g.attention_of_heads(q, k, g.heads(g.linear(x, 16)))));
  }
  const SlicedModel model = slice_model(g.finish(x));
  for (const Slice& slice : model.slices) {
    EXPECT_EQ(computes(slice, table), slice.idx < 3);
    EXPECT_EQ(slice.carried_out.size(), slice.idx < 3 ? 1U : 0U);
  }
}

TEST(SlicerTest, CarriesKAndVOverManySlicesWhereALaterLayerSharesThem) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId k = g.heads(g.linear(x, 8));
  const ValueId v = g.heads(g.linear(x, 8));
  ValueId y = g.flat(g.attention_of_heads(g.heads(g.linear(x, 16)), k, v));
  y = g.self_attention(y);
  y = g.flat(g.attention_of_heads(g.heads(g.linear(y, 16)), k, v));
  const SlicedModel model = slice_model(g.finish(y));
  EXPECT_THAT(model.slices[0].carried_out, ElementsAre(k, v));
  EXPECT_THAT(model.slices[1].carried_in, IsEmpty());
  EXPECT_THAT(model.slices[1].carried_out, ElementsAre(k, v));
  EXPECT_THAT(model.slices[2].carried_in, ElementsAre(k, v));
  EXPECT_THAT(model.slices[2].carried_out, IsEmpty());
}

TEST(SlicerTest, AnAttentionOutputMayBeCarriedToALaterSlice) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId first = g.attention_of_heads(g.heads(x), g.heads(x), g.heads(x));
  const ValueId second = g.attention_of_heads(first, first, first);
  const SlicedModel model = slice_model(g.finish(g.add(first, second)));
  EXPECT_THAT(model.slices[0].carried_out, IsEmpty());
  EXPECT_THAT(model.slices[1].carried_out, ElementsAre(first));
  EXPECT_THAT(model.slices[2].carried_in, ElementsAre(first));
}

TEST(SlicerTest, LeavesOutWhatHasNoEffect) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId unused = g.linear(x, 64);
  const SlicedModel model = slice_model(g.finish(g.self_attention(x)));
  for (const Slice& slice : model.slices) EXPECT_FALSE(computes(slice, unused));
}

TEST(SlicerTest, SameGraphSameText) {
  const auto build = [] {
    GraphSketch g;
    const ValueId x = g.embed(16);
    return slice_model(g.finish(g.add(x, g.self_attention(g.norm(x))))).dump();
  };
  EXPECT_EQ(build(), build());
}

void expect_refused(Graph graph, const std::string& text) {
  try {
    static_cast<void>(slice_model(std::move(graph)));
    ADD_FAILURE() << "sliced; expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(SlicerTest, RefusesGraphsItCannotSlice) {
  {
    GraphSketch g;
    const ValueId x = g.embed(16);
    expect_refused(g.finish(x), "it has no attention operator");
  }
  {
    GraphSketch g;
    const ValueId x = g.embed(16);
    expect_refused(g.finish(g.add(g.self_attention(x), g.self_attention(x))),
                   "does not depend on the attention before it");
  }
  {
    GraphSketch g;
    const ValueId x = g.embed(16);
    g.self_attention(x);
    expect_refused(g.finish(x), "has no effect on the output");
  }
}

}  // namespace
}  // namespace lamina
