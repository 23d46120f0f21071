#include "model/builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "base/error.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;

ModelConfig small_config(const std::string& model_type) {
  ModelConfig config;
  config.model_type = model_type;
  config.vocab_size = 128;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 24;  // not hidden_size / num_heads, on purpose
  config.max_position_embeddings = 256;
  config.windows.resize(2);
  return config;
}

std::set<std::string> weight_names(const Graph& graph) {
  std::set<std::string> names;
  for (const Node& node : graph.nodes()) {
    if (node.kind == OpKind::kWeight) names.insert(node.name);
  }
  return names;
}

// What a Hugging Face checkpoint of the family stores.
std::set<std::string> expected_names(const ModelConfig& config, bool qk_norm) {
  std::set<std::string> names = {"model.embed_tokens.weight", "model.norm.weight"};
  if (!config.tie_word_embeddings) names.insert("lm_head.weight");
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
      names.insert(prefix + norm + ".weight");
    }
    const auto add_linear = [&](const std::string& path, bool bias) {
      names.insert(prefix + path + ".weight");
      if (bias) names.insert(prefix + path + ".bias");
    };
    for (const char* name : {"q", "k", "v"}) {
      add_linear(std::string("self_attn.") + name + "_proj", config.qkv_bias);
    }
    add_linear("self_attn.o_proj", config.output_bias);
    for (const char* name : {"gate", "up", "down"}) {
      add_linear(std::string("mlp.") + name + "_proj", config.mlp_bias);
    }
    if (!qk_norm) continue;
    names.insert(prefix + "self_attn.q_norm.weight");
    names.insert(prefix + "self_attn.k_norm.weight");
  }
  return names;
}

const Node& only_node(const Graph& graph, OpKind kind) {
  const auto of_kind = [&](const Node& node) { return node.kind == kind; };
  EXPECT_EQ(std::ranges::count_if(graph.nodes(), of_kind), 1);
  return *std::ranges::find_if(graph.nodes(), of_kind);
}

TEST(BuilderTest, UsesTheWeightsOfTheLlamaLineage) {
  for (const std::string_view type : {"llama", "granite", "mistral", "qwen2", "qwen3"}) {
    SCOPED_TRACE(type);
    for (const bool biased : {false, true}) {
      ModelConfig config = small_config(std::string(type));
      config.qkv_bias = config.output_bias = config.mlp_bias = biased;
      config.tie_word_embeddings = biased;
      const Graph graph = build_graph(config, DType::kBF16);
      EXPECT_EQ(weight_names(graph), expected_names(config, type == "qwen3"));
    }
  }
}

TEST(BuilderTest, ComputesInTheGivenTypeAndEndsInF32Logits) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const Graph graph = build_graph(small_config("llama"), dtype);
    graph.verify();
    EXPECT_EQ(graph.type(graph.output()), (ValueType{DType::kF32, RowAxis::kLogits, {128}}));
    for (const Node& node : graph.nodes()) {
      if (node.kind == OpKind::kInput || node.kind == OpKind::kRopeTable) continue;
      if (node.id == graph.output()) continue;
      EXPECT_EQ(node.type.dtype, dtype) << graph.dump_node(node.id);
    }
  }
}

TEST(BuilderTest, SharesOneRotaryTableAndGathersOnceBeforeTheHead) {
  const Graph graph = build_graph(small_config("llama"), DType::kBF16);
  const Node& table = only_node(graph, OpKind::kRopeTable);
  EXPECT_EQ(graph.consumers(table.id).size(), 4U);  // q and k of two layers
  EXPECT_EQ(table.type, (ValueType{DType::kF32, RowAxis::kTokens, {24}}));
  const Node& gather = only_node(graph, OpKind::kGatherRows);
  EXPECT_EQ(gather.type.row_shape, Shape{64});
  const Node& head = graph.node(graph.output());
  EXPECT_EQ(head.kind, OpKind::kLinear);
  EXPECT_EQ(graph.type(head.inputs[0]).rows, RowAxis::kLogits);
}

TEST(BuilderTest, GivesEveryLayerItsScaleAndWindow) {
  ModelConfig config = small_config("mistral");
  config.windows = {std::nullopt, 24};
  const Graph graph = build_graph(config, DType::kBF16);
  const std::vector<NodeId> attentions = graph.attention_nodes();
  ASSERT_EQ(attentions.size(), 2U);
  for (size_t layer = 0; layer < 2; ++layer) {
    const auto& attrs = std::get<AttentionAttrs>(graph.node(attentions[layer]).attrs);
    EXPECT_EQ(attrs.window, config.windows[layer]);
    EXPECT_EQ(attrs.num_heads, 4);
    EXPECT_EQ(attrs.num_kv_heads, 2);
    EXPECT_FLOAT_EQ(attrs.scale * attrs.scale, 1.0F / 24.0F);
  }
}

TEST(BuilderTest, Qwen3NormalisesHeadsBeforeTheRotation) {
  const Graph graph = build_graph(small_config("qwen3"), DType::kBF16);
  for (const Node& node : graph.nodes()) {
    if (node.kind != OpKind::kRope) continue;
    const Node& norm = graph.node(node.inputs[0]);
    EXPECT_EQ(norm.kind, OpKind::kNorm);
    EXPECT_EQ(graph.node(norm.inputs[0]).kind, OpKind::kReshape);
  }
}

TEST(BuilderTest, TiedHeadReadsTheEmbeddingTable) {
  ModelConfig config = small_config("llama");
  config.tie_word_embeddings = true;
  const Graph graph = build_graph(config, DType::kBF16);
  const Node& embedding = only_node(graph, OpKind::kEmbedding);
  EXPECT_EQ(graph.node(graph.output()).inputs[1], embedding.inputs[0]);
}

void expect_refused(const ModelConfig& config, StatusCode code, const char* text) {
  try {
    static_cast<void>(build_graph(config, DType::kBF16));
    ADD_FAILURE() << "built; expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(BuilderTest, RefusesWhatItCannotBuild) {
  expect_refused(small_config("mamba"),
                 StatusCode::kUnimplemented,
                 "model type 'mamba' is not supported; supported are bloom, cohere");
  ModelConfig config = small_config("llama");
  config.num_kv_heads = 3;
  expect_refused(config, StatusCode::kInvalidArgument, "num_heads 4 is no multiple");
  config = small_config("llama");
  config.vocab_size = 0;
  expect_refused(config, StatusCode::kInvalidArgument, "vocab_size is 0");
  config = small_config("llama");
  config.windows.pop_back();
  expect_refused(config, StatusCode::kInvalidArgument, "1 windows for 2 layers");
  EXPECT_THROW(static_cast<void>(build_graph(small_config("llama"), DType::kI32)), Error);
}

}  // namespace
}  // namespace lamina
