#include "exec/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "convert/converter.h"
#include "convert/graph_sketch.h"
#include "convert/random_model.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

using test::GraphSketch;
using ::testing::HasSubstr;

constexpr StepLimits kLimits{.max_tokens = 64, .max_logits_rows = 8};

// Pre-norm blocks whose q, k and v are one product.
Graph decoder(int32_t num_layers) {
  GraphSketch g;
  const ValueId table = g.rope_table();
  ValueId x = g.embed(32);
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    const ValueId in = g.norm(x);
    const ValueId q = g.rope(g.heads(g.linear(in, 32)), table);
    const ValueId k = g.rope(g.heads(g.linear(in, 16)), table);
    const ValueId v = g.heads(g.linear(in, 16));
    x = g.add(x, g.linear(g.flat(g.attention_of_heads(q, k, v)), 32));
    const ValueId mlp_in = g.norm(x);
    const ValueId gate = g.silu(g.linear(mlp_in, 64));
    x = g.add(x, g.linear(g.mul(gate, g.linear(mlp_in, 64)), 32));
  }
  return g.finish(g.linear(g.norm(x), 100));
}

RewriteOptions q_fused() {
  RewriteOptions options;
  options.rates.launch_s = 1.0;
  return options;
}

const ValuePlace& place(const MemoryPlan& plan, size_t slice, ValueId value) {
  return plan.places[slice][static_cast<size_t>(value)];
}

// plan_memory() verifies: it throws where a value does not live as long as it is needed.
TEST(MemoryPlanTest, HoldsForRandomModels) {
  size_t num_carried_views = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Graph graph = test::RandomModel(seed).build(1 + seed % 5, 8);
    const ConvertedModel model = convert_model(graph, seed % 2 == 0 ? RewriteOptions() : q_fused());
    ASSERT_NO_THROW(plan_memory(model.sliced, kLimits));
    ASSERT_NO_THROW(plan_memory(slice_model(graph), {.max_tokens = 1, .max_logits_rows = 1}));
    for (const Slice& slice : model.sliced.slices) {
      for (const ValueId value : slice.carried_out) {
        const OpKind kind = model.sliced.graph.node(value).kind;
        if (kind == OpKind::kReshape || kind == OpKind::kColumns) ++num_carried_views;
      }
    }
  }
  EXPECT_GT(num_carried_views, 50U);
}

TEST(MemoryPlanTest, ViewsLieInTheRowsOfTheirStorage) {
  GraphSketch g;
  const ValueId x = g.embed(32);
  const ValueId product = g.linear(x, 32);
  const ValueId q = g.heads(g.columns(product, 0, 16));
  const ValueId k = g.heads(g.columns(product, 16, 16));
  const ValueId second = g.columns(k, 1, 1);  // the second head of k
  const ValueId out = g.attention_of_heads(q, k, k);
  const SlicedModel model =
      slice_model(g.finish(g.add(g.flat(second), g.columns(g.flat(out), 8, 8))));
  const MemoryPlan plan = plan_memory(model, kLimits);
  const ValuePlace& storage = place(plan, 0, product);
  EXPECT_EQ(storage.row_stride_bytes, 128U);
  EXPECT_EQ(place(plan, 0, q).offset, storage.offset);
  EXPECT_EQ(place(plan, 0, k).offset, storage.offset + 64);
  EXPECT_EQ(place(plan, 0, second).offset, storage.offset + 96);
  for (const ValueId view : {q, k, second}) {
    EXPECT_EQ(place(plan, 0, view).region, storage.region);
    EXPECT_EQ(place(plan, 0, view).row_stride_bytes, 128U);
  }
  EXPECT_EQ(storage.region, ValueRegion::kCarried);  // for its view's sake
}

TEST(MemoryPlanTest, ReusesMemoryAcrossLayers) {
  const MemoryPlan few = plan_memory(convert_model(decoder(3)).sliced, kLimits);
  const MemoryPlan many = plan_memory(convert_model(decoder(12)).sliced, kLimits);
  EXPECT_EQ(few.scratch_bytes, many.scratch_bytes);
  EXPECT_EQ(few.carried_bytes, many.carried_bytes);
}

TEST(MemoryPlanTest, VerifyFindsWhatOverlaps) {
  const SlicedModel model = convert_model(decoder(2), q_fused()).sliced;
  const MemoryPlan plan = plan_memory(model, kLimits);
  const auto expect_broken = [&](const MemoryPlan& broken, const std::string& text) {
    try {
      broken.verify(model, kLimits);
      ADD_FAILURE() << "not found: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), StatusCode::kInternal);
      EXPECT_THAT(error.what(), HasSubstr(text));
    }
  };
  EXPECT_NO_THROW(plan.verify(model, kLimits));
  const AttentionOp& attention = model.attentions[0];
  {
    MemoryPlan broken = plan;
    broken.places[0][static_cast<size_t>(attention.q)].offset += 4;
    expect_broken(broken, "is read where it does not lie");
  }
  {
    MemoryPlan broken = plan;
    broken.places[0][static_cast<size_t>(attention.q)].row_stride_bytes /= 2;
    expect_broken(broken, "is read where it does not lie");
  }
  {
    MemoryPlan broken = plan;
    broken.places[1][static_cast<size_t>(attention.out)].region = ValueRegion::kNone;
    expect_broken(broken, "has no place");
  }
  {
    MemoryPlan broken = plan;
    broken.scratch_bytes = broken.scratch_bytes / 2;
    expect_broken(broken, "ends outside of its region");
  }
  {  // every scratch value at the same place
    MemoryPlan broken = plan;
    for (const Node& node : model.graph.nodes()) {
      ValuePlace& at = broken.places[1][static_cast<size_t>(node.id)];
      if (at.region == ValueRegion::kScratch) at.offset = 0;
    }
    expect_broken(broken, "is read where it does not lie");
  }
}

}  // namespace
}  // namespace lamina
