#include "convert/tensor_parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "convert/graph_sketch.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

using test::GraphSketch;
using ::testing::HasSubstr;

int64_t count(const Graph& graph, OpKind kind) {
  return std::ranges::count(graph.nodes(), kind, &Node::kind);
}

// One pre-norm block with heads of 8 and an MLP, and a head.
Graph block(int64_t width, int64_t kv_width) {
  GraphSketch sketch;
  const ValueId x = sketch.embed(width);
  const ValueId normed = sketch.norm(x);
  const ValueId q = sketch.heads(sketch.linear(normed, width, "q"));
  const ValueId k = sketch.heads(sketch.linear(normed, kv_width, "k"));
  const ValueId v = sketch.heads(sketch.linear(normed, kv_width, "v"));
  const ValueId out = sketch.linear(sketch.flat(sketch.attention_of_heads(q, k, v)), width, "o");
  const ValueId y = sketch.add(x, out);
  const ValueId inner = sketch.silu(sketch.linear(sketch.norm(y), 2 * width, "up"));
  const ValueId z = sketch.add(y, sketch.linear(inner, width, "down"));
  return sketch.finish(sketch.linear(sketch.norm(z), 96, "head"));
}

TEST(TensorParallelTest, OneRankIsTheGraphItself) {
  const Graph graph = block(64, 32);
  EXPECT_EQ(shard_graph(graph, 0, 1).dump(), graph.dump());
}

TEST(TensorParallelTest, SumsOnceAfterEachBlockAndGathersTheLogits) {
  const Graph graph = block(64, 32);
  for (const int32_t num_ranks : {2, 4}) {
    int64_t weight_elements = 0;
    for (int32_t rank = 0; rank < num_ranks; ++rank) {
      const Graph sharded = shard_graph(graph, rank, num_ranks);
      EXPECT_EQ(count(sharded, OpKind::kAllReduce), 3);  // embedding, attention, MLP
      EXPECT_EQ(count(sharded, OpKind::kAllGather), 1);
      EXPECT_EQ(sharded.type(sharded.output()), graph.type(graph.output()));
      const auto& attrs =
          std::get<AttentionAttrs>(sharded.node(sharded.attention_nodes().front()).attrs);
      EXPECT_EQ(attrs.num_heads, 8 / num_ranks);
      EXPECT_EQ(attrs.num_kv_heads, 4 / num_ranks);
      for (const Node& node : sharded.nodes()) {
        if (node.kind == OpKind::kWeight && node.type.row_shape.rank() == 2) {
          weight_elements += node.type.row_shape.num_elements();
        }
      }
    }
    int64_t expected = 0;
    for (const Node& node : graph.nodes()) {
      if (node.kind == OpKind::kWeight && node.type.row_shape.rank() == 2) {
        expected += node.type.row_shape.num_elements();
      }
    }
    EXPECT_EQ(weight_elements, expected) << "no matrix stands on two ranks";
  }
}

TEST(TensorParallelTest, RanksShareAKvHeadWhereThereAreTooFew) {
  const Graph graph = block(64, 16);  // 8 heads, 2 KV heads
  for (int32_t rank = 0; rank < 4; ++rank) {
    const Graph sharded = shard_graph(graph, rank, 4);
    const Node& attention = sharded.node(sharded.attention_nodes().front());
    EXPECT_EQ(std::get<AttentionAttrs>(attention.attrs).num_kv_heads, 1);
    const Node& key = sharded.node(attention.inputs[1]);
    ASSERT_EQ(key.kind, OpKind::kColumns);
    EXPECT_EQ(std::get<ColumnsAttrs>(key.attrs).begin, rank / 2);
  }
}

TEST(TensorParallelTest, WeightsAreTakenFromTheStoredTensors) {
  const Graph sharded = shard_graph(block(64, 32), 1, 2);
  const std::string text = sharded.dump();
  EXPECT_THAT(text, HasSubstr("[32:64]"));    // rows of a column-parallel product
  EXPECT_THAT(text, HasSubstr("[, 32:64]"));  // columns of a row-parallel one
}

TEST(TensorParallelTest, RanksHaveTheSameSlices) {
  const Graph graph = block(64, 32);
  const SlicedModel first = slice_model(shard_graph(graph, 0, 2));
  const SlicedModel second = slice_model(shard_graph(graph, 1, 2));
  ASSERT_EQ(first.slices.size(), second.slices.size());
  for (size_t i = 0; i < first.slices.size(); ++i) {
    EXPECT_EQ(first.slices[i].program, second.slices[i].program);
    EXPECT_EQ(first.slices[i].carried_out, second.slices[i].carried_out);
  }
}

TEST(TensorParallelTest, RefusesHeadsThatCannotBeShared) {
  const auto refusal = [](int64_t width, int64_t kv_width, int32_t rank, int32_t num_ranks) {
    try {
      static_cast<void>(shard_graph(block(width, kv_width), rank, num_ranks));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refusal(64, 32, 0, 3), HasSubstr("8 attention heads with 4 KV heads"));
  EXPECT_THAT(refusal(48, 48, 0, 4), HasSubstr("6 attention heads with 6 KV heads"));
  EXPECT_THAT(refusal(64, 32, 2, 2), HasSubstr("rank 2 of 2"));
}

}  // namespace
}  // namespace lamina
