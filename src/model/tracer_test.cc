#include "model/tracer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;

TEST(TracerTest, NamesWeightsByModule) {
  ModelTracer tracer(DType::kBF16);
  const Scope layer = tracer.module("model") / "layers" / 3;
  EXPECT_EQ(layer.path(), "model.layers.3");
  EXPECT_EQ((tracer.module("") / "lm_head").path(), "lm_head");

  Sym x = (tracer.module("embed")).embedding(tracer.token_ids(), 10, 8);
  x = x + (layer / "proj").linear(x.activated(Activation::kSilu) * x, 8, {.bias = true});
  const Graph graph = tracer.finish(x);
  const std::string text = graph.dump();
  EXPECT_THAT(text, HasSubstr("weight() [10, 8] bf16  # embed.weight"));
  EXPECT_THAT(text, HasSubstr("weight() [8, 8] bf16  # model.layers.3.proj.weight"));
  EXPECT_THAT(text, HasSubstr("weight() [8] bf16  # model.layers.3.proj.bias"));
  EXPECT_THAT(text, HasSubstr("[T, 8] bf16  # model.layers.3.proj\n"));
}

TEST(TracerTest, CountsAttentionLayersInOrderOfTracing) {
  ModelTracer tracer(DType::kF32);
  const Sym x = tracer.module("embed").embedding(tracer.token_ids(), 10, 8);
  const Sym heads = x.split_heads(2);
  EXPECT_EQ(heads.type().row_shape, (Shape{2, 4}));
  const Scope attn = tracer.module("attn");
  const Sym first = attn.attention(heads, heads, heads, {});
  const Sym second = attn.attention(first, heads, heads, {.scale = 1.0F, .window = 5});
  const Graph graph = tracer.finish(second.join_heads());
  EXPECT_EQ(std::get<AttentionAttrs>(graph.node(first.id()).attrs).layer_idx, 0);
  const auto& attrs = std::get<AttentionAttrs>(graph.node(second.id()).attrs);
  EXPECT_EQ(attrs,
            (AttentionAttrs{.layer_idx = 1,
                            .num_heads = 2,
                            .num_kv_heads = 2,
                            .head_dim = 4,
                            .value_dim = 4,
                            .scale = 1.0F,
                            .window = 5}));
  EXPECT_EQ(graph.type(graph.output()).row_shape, Shape{8});
}

TEST(TracerTest, PartsOfFusedWeightsHaveTheirOwnNames) {
  ModelTracer tracer(DType::kF32);
  const Sym x = tracer.module("embed").embedding(tracer.token_ids(), 10, 8, 2);
  const Scope fused = tracer.module("c_attn");
  const auto part = [&](int64_t begin) {
    return LinearOptions{
        .bias = true, .part = FusedRows{24, {begin, 8}}, .stored_transposed = true};
  };
  const Graph graph = tracer.finish(fused.linear(x, 8, part(0)) + fused.linear(x, 8, part(16)));
  const std::string text = graph.dump();
  EXPECT_THAT(text, HasSubstr("weight() embed.weight[2:12] [10, 8] f32  # embed.weight\n"));
  EXPECT_THAT(text, HasSubstr("# c_attn.weight^T[0:8]\n"));
  EXPECT_THAT(text, HasSubstr("# c_attn.weight^T[16:24]\n"));
  EXPECT_THAT(text, HasSubstr("# c_attn.bias[16:24]\n"));
}

TEST(TracerTest, RefusesWhatDoesNotFit) {
  EXPECT_THROW(ModelTracer tracer(DType::kI32), Error);
  ModelTracer tracer(DType::kF32);
  const Sym x = tracer.module("embed").embedding(tracer.token_ids(), 10, 8);
  try {
    static_cast<void>(x.split_heads(3));
    ADD_FAILURE() << "8 features do not split into 3 heads";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "[T, 8] f32 does not split into 3 heads");
  }
}

}  // namespace
}  // namespace lamina
