#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include <nlohmann/json.hpp>

#include "convert/graph_sketch.h"
#include "convert/report/conversion_report.h"
#include "convert/report/slice_classes.h"
#include "convert/report/svg.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

using test::GraphSketch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

struct Sizes {
  int32_t num_layers = 0;
  int64_t hidden = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int64_t inner = 0;
  int64_t vocab = 0;
};
constexpr int32_t kHeadDim = 128;

// A llama in bfloat16, as its builder traces it.
Graph llama(const Sizes& sizes) {
  Graph graph;
  const auto weight = [&](const std::string& name, const Shape& shape) {
    return graph.add_weight(name, {DType::kBF16, RowAxis::kFixed, shape});
  };
  const auto linear = [&](const std::string& name, ValueId x, int64_t width) {
    const int64_t in = graph.type(x).row_shape[0];
    return graph.add(OpKind::kLinear, name, {x, weight(name + ".weight", {width, in})});
  };
  const auto norm = [&](const std::string& name, ValueId x) {
    const ValueId scale = weight(name + ".weight", {sizes.hidden});
    return graph.add(OpKind::kNorm, name, {x, scale}, NormAttrs{});
  };
  const ValueId ids = graph.add_input("token_ids", {DType::kI32, RowAxis::kTokens, {}});
  const ValueId positions = graph.add_input("positions", {DType::kI32, RowAxis::kTokens, {}});
  const ValueId rows = graph.add_input("logits_rows", {DType::kI32, RowAxis::kLogits, {}});
  const ValueId table = graph.add(OpKind::kRopeTable,
                                  "angles",
                                  {positions},
                                  RopeTableAttrs{std::vector<float>(64, 0.1F), 1.0F});
  ValueId x = graph.add(
      OpKind::kEmbedding, "embed_tokens", {weight("embed", {sizes.vocab, sizes.hidden}), ids});
  for (int32_t i = 0; i < sizes.num_layers; ++i) {
    const std::string layer = "layers." + std::to_string(i);
    const AttentionAttrs attrs{.layer_idx = i,
                               .num_heads = sizes.num_heads,
                               .num_kv_heads = sizes.num_kv_heads,
                               .head_dim = kHeadDim,
                               .value_dim = kHeadDim};
    const ValueId in = norm(layer + ".input_layernorm", x);
    const auto heads = [&](const std::string& name, int32_t count) {
      const ValueId flat = linear(layer + "." + name, in, count * kHeadDim);
      return graph.add_reshape("", flat, {count, kHeadDim});
    };
    const auto turned = [&](ValueId value) { return graph.add(OpKind::kRope, "", {value, table}); };
    const ValueId q = turned(heads("q_proj", sizes.num_heads));
    const ValueId k = turned(heads("k_proj", sizes.num_kv_heads));
    const ValueId v = heads("v_proj", sizes.num_kv_heads);
    const ValueId attn = graph.add(OpKind::kAttention, layer, {q, k, v}, attrs);
    const ValueId flat = graph.add_reshape("", attn, {sizes.num_heads * kHeadDim});
    x = graph.add(OpKind::kAdd, "", {x, linear(layer + ".o_proj", flat, sizes.hidden)});
    const ValueId mlp_in = norm(layer + ".post_attention_layernorm", x);
    const ValueId gate = graph.add(OpKind::kActivation,
                                   "",
                                   {linear(layer + ".gate_proj", mlp_in, sizes.inner)},
                                   ActivationAttrs{});
    const ValueId up = linear(layer + ".up_proj", mlp_in, sizes.inner);
    const ValueId inner = graph.add(OpKind::kMul, "", {gate, up});
    x = graph.add(OpKind::kAdd, "", {x, linear(layer + ".down_proj", inner, sizes.hidden)});
  }
  x = graph.add(OpKind::kGatherRows, "", {x, rows});
  graph.set_output(linear("lm_head", norm("norm", x), sizes.vocab));
  return graph;
}

Graph llama_70b() {
  return llama({.num_layers = 80,
                .hidden = 8192,
                .num_heads = 64,
                .num_kv_heads = 8,
                .inner = 28672,
                .vocab = 128256});
}

// The paper's arithmetic: (2 + 2 / G) d e L on the wire, d e across every cut.
TEST(ConversionReportTest, Llama70B) {
  const ConversionReport report = report_conversion(convert_model(llama_70b()));
  ASSERT_THAT(report.slices, SizeIs(3));
  EXPECT_EQ(report.slices[1].count, 79);
  EXPECT_EQ(report.slices[1].label, "1-79 (x79)");
  for (const size_t i : {0, 1}) {
    ASSERT_THAT(report.slices[i].carried_out, SizeIs(1));
    EXPECT_EQ(report.slices[i].carried_out[0].bytes, 16384);
    EXPECT_EQ(report.slices[i].work.sent_bytes, 16384 + 4096);
  }
  EXPECT_THAT(report.slices[2].carried_out, SizeIs(0));
  EXPECT_EQ(report.total.sent_bytes + report.total.received_bytes, 2'949'120);
  // Weights: 70.55 billion of them; all but the embedding table multiply.
  const int64_t layer = 8192 * (8192 + 2 * 1024) + 8192 * 8192 + 3 * 8192 * 28672;
  const int64_t matrices = 80 * layer + 8192 * 128256;
  const int64_t norms = 161 * 8192;
  EXPECT_EQ(report.total.flop, 2 * matrices);
  EXPECT_EQ(report.total.weight_bytes, 2 * (matrices + norms + 8192 * 128256));
  EXPECT_EQ(report.total.weight_bytes_read, 2 * (matrices + norms + 8192));
  ASSERT_THAT(report.rewrites.projections, SizeIs(1));
  EXPECT_EQ(report.rewrites.projections[0].num_attentions, 80);
}

// The limit is generous for a busy machine; it takes a tenth of this.
TEST(ConversionReportTest, A405BModelConvertsWithinASecond) {
  const std::clock_t begin = std::clock();  // of this process: others may have the cores meanwhile
  const ConvertedModel model = convert_model(llama({.num_layers = 126,
                                                    .hidden = 16384,
                                                    .num_heads = 128,
                                                    .num_kv_heads = 8,
                                                    .inner = 53248,
                                                    .vocab = 128256}));
  const std::string text = report_text(report_conversion(model), model.sliced, std::nullopt);
  const std::clock_t elapsed = std::clock() - begin;
  EXPECT_THAT(text, HasSubstr("1-125 (x125)"));
#ifdef NDEBUG
  EXPECT_LT(elapsed, 1 * CLOCKS_PER_SEC);
#else
  EXPECT_LT(elapsed, 60 * CLOCKS_PER_SEC);
#endif
}

TEST(ConversionReportTest, PrintsEveryDistinctSliceOnce) {
  const ConvertedModel model = convert_model(llama_70b());
  const std::string text = report_text(
      report_conversion(model),
      model.sliced,
      ActivationMemory{.max_tokens = 512, .scratch_bytes = 3'000'000, .carried_bytes = 1'000'000});
  EXPECT_THAT(text, HasSubstr("wire: 2949120 bytes a token, both ways (2.949 MB)\n"));
  EXPECT_THAT(text, HasSubstr("slice 1-79 (x79) carries %"));
  EXPECT_THAT(text, HasSubstr(": 16384 bytes\n"));
  EXPECT_THAT(text,
              HasSubstr("activations at 512 tokens: 4.000 MB at most, 1.000 MB of it carried"));
  EXPECT_THAT(text, HasSubstr("rewrite gated-activation: 80 times"));
  EXPECT_THAT(text,
              HasSubstr("q, k, v of 80 attentions (8192 -> 8192 + 2048): q first; attention "));
  EXPECT_THAT(text, HasSubstr("slices 1-79 (x79), of which the first:\nslice 1\n"));
  EXPECT_THAT(text, HasSubstr("slice 80\n"));
  EXPECT_THAT(text, Not(HasSubstr("slice 2\n")));
}

TEST(ConversionReportTest, JsonSaysTheSame) {
  const ConvertedModel model = convert_model(llama_70b());
  const ConversionReport report = report_conversion(model);
  const auto json =
      nlohmann::json::parse(report_json(report, model.sliced, ActivationMemory{512, 3, 1}));
  ASSERT_THAT(json.at("slices"), SizeIs(3));
  EXPECT_EQ(json.at("slices")[1].at("count"), 79);
  EXPECT_EQ(json.at("slices")[1].at("carried_out")[0].at("bytes_per_token"), 16384);
  EXPECT_EQ(json.at("total").at("flop_per_token"), report.total.flop);
  EXPECT_EQ(json.at("projections")[0].at("fused"), false);
  EXPECT_EQ(json.at("activations").at("scratch_bytes"), 3);
  EXPECT_EQ(json.at("rewrites").size(), rewrite_names().size());
}

// A token reads the weights of its experts only, and of a latent attention sends k alone.
TEST(ConversionReportTest, CountsExpertsAndLatentKeysAsTheyAreUsed) {
  GraphSketch g;
  const auto weight = [&](const std::string& name, const Shape& shape) {
    return g.graph.add_weight(name, {DType::kF32, RowAxis::kFixed, shape});
  };
  const ValueId x = g.embed(8);
  const ValueId latent = g.heads(g.linear(x, 8));
  const AttentionAttrs attrs{
      .num_heads = 1, .num_kv_heads = 1, .head_dim = 8, .value_dim = 4, .latent = true};
  const ValueId attn =
      g.graph.add(OpKind::kAttention, "attn", {g.heads(g.linear(x, 8)), latent, latent}, attrs);
  const ValueId y = g.linear(g.flat(attn), 8);
  const ValueId routes =
      g.graph.add(OpKind::kRoute, "route", {g.linear(y, 16)}, RouteAttrs{.top_k = 2});
  const ValueId out =
      g.graph.add(OpKind::kExperts,
                  "experts",
                  {y, routes, weight("gate_up", {16, 6, 8}), weight("down", {16, 8, 3})},
                  GatedActivationAttrs{});
  RewriteOptions options;
  const ConversionReport report = report_conversion(convert_model(g.finish(out), options));
  const SliceWork& last = report.slices.back().work;
  const int64_t dense = 8 * 4 + 8 * 16;  // elements of the output projection and the router
  const int64_t expert = 6 * 8 + 8 * 3;  // of one expert
  EXPECT_EQ(last.flop, 2 * (dense + 2 * expert));
  EXPECT_EQ(last.weight_bytes_read, 4 * (dense + 2 * expert));
  EXPECT_EQ(last.weight_bytes, 4 * (dense + 16 * expert));
  EXPECT_EQ(report.total.sent_bytes, 4 * (8 + 8));
  EXPECT_EQ(report.total.received_bytes, 4 * 4);
}

TEST(SliceClassesTest, WindowsAndWidthsTellSlicesApart) {
  const auto layers = [](const std::vector<std::optional<int32_t>>& windows) {
    GraphSketch g;
    ValueId x = g.embed(8);
    for (size_t i = 0; i < windows.size(); ++i) {
      const ValueId q = g.heads(g.linear(x, 8));
      const ValueId kv = g.heads(g.linear(x, 8));
      const AttentionAttrs attrs{.layer_idx = static_cast<int32_t>(i),
                                 .num_heads = 1,
                                 .num_kv_heads = 1,
                                 .head_dim = 8,
                                 .value_dim = 8,
                                 .window = windows[i]};
      x = g.add(x, g.flat(g.graph.add(OpKind::kAttention, "", {q, kv, kv}, attrs)));
    }
    return slice_classes(slice_model(g.finish(g.norm(x))));
  };
  EXPECT_THAT(layers({{}, {}, {}, {}}), ElementsAre(0, 1, 1, 1, 4));
  EXPECT_THAT(layers({{}, 4, {}, 4, {}}), ElementsAre(0, 1, 2, 1, 2, 5));
  EXPECT_THAT(layers({{}, 4, {}, 5}), ElementsAre(0, 1, 2, 3, 4));
}

TEST(SliceClassesTest, RunsAndLabels) {
  const std::vector<int32_t> classes = {0, 1, 2, 1, 2, 1, 2, 1, 8};
  const std::vector<SliceRun> runs = slice_runs(classes);
  ASSERT_THAT(runs, SizeIs(4));
  EXPECT_EQ(runs[1].begin, 1);
  EXPECT_EQ(runs[1].num_slices, 2);
  EXPECT_EQ(runs[1].repeats, 3);
  EXPECT_EQ(runs[2].begin, 7);
  EXPECT_EQ(class_label(classes, 0), "0");
  EXPECT_EQ(class_label(classes, 1), "1, 3, 5, ... (x4)");
  EXPECT_EQ(class_label({0, 1, 1, 1, 4}, 1), "1-3 (x3)");
}

TEST(SvgTest, DrawsEqualSlicesOnceWithTheBytesThatCross) {
  const std::string text = svg(convert_model(llama_70b()).sliced);
  EXPECT_THAT(text, HasSubstr(">slice 1, and 78 like it</text>"));
  EXPECT_THAT(text, HasSubstr(">attention 0</text>"));
  EXPECT_THAT(text, HasSubstr(">q 16384 B</text>"));
  EXPECT_THAT(text, HasSubstr(">k 2048 B</text>"));
  EXPECT_THAT(text, HasSubstr(">carried 16384 B</text>"));
  EXPECT_THAT(text, HasSubstr(">slice 80</text>"));
  EXPECT_THAT(text, Not(HasSubstr(">slice 2</text>")));
  EXPECT_EQ(text.find("NaN"), std::string::npos);
}

TEST(SvgTest, EscapesNamesAndDrawsValuesKeptForLong) {
  GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId k = g.heads(g.linear(x, 8, "a<b&c"));
  ValueId y = g.flat(g.attention_of_heads(g.heads(g.linear(x, 16)), k, k));
  y = g.self_attention(y);
  y = g.flat(g.attention_of_heads(g.heads(g.linear(y, 16)), k, k));
  const std::string text = svg(slice_model(g.finish(y)));
  EXPECT_THAT(text, HasSubstr("a&lt;b&amp;c"));
  EXPECT_THAT(text, HasSubstr(">attention 2</text>"));
}

}  // namespace
}  // namespace lamina
