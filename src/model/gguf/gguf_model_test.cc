// GGUF files of an independent writer (tests/fixtures/gguf/make.py), opened as models. Their
// weights follow a formula, so every element is known.
#include "model/gguf/gguf_model.h"

#include <gmock/gmock.h>

#include <numeric>

#include "base/file.h"
#include "model/builder.h"
#include "model/gguf/gguf_file.h"
#include "model/gguf/gguf_vocabulary.h"
#include "model/model_files.h"
#include "model/testing/model_test_support.h"
#include "support/paths.h"

namespace lamina {
namespace {

using test::error_of;
using ::testing::HasSubstr;

std::unique_ptr<ModelFiles> open_fixture(const std::string& name) {
  return open_model(test::fixture_path("gguf/" + name));
}

// make.py's formula.
float expected(std::string_view name, int64_t row, int64_t column) {
  const int sum = std::accumulate(name.begin(), name.end(), 0);
  return static_cast<float>(32 * (sum % 97)) + static_cast<float>(row) +
         static_cast<float>(column) / 64.0F;
}

void expect_formula(const WeightStore& store, const std::string& name, const Shape& shape) {
  const TensorView tensor = store.get(name);
  ASSERT_EQ(tensor.shape, shape) << name;
  ASSERT_EQ(tensor.dtype, DType::kF32) << name;
  const int64_t rows = shape.rank() == 1 ? 1 : shape[0];
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < shape[-1]; ++column) {
      ASSERT_EQ(tensor.as<float>()[row * shape[-1] + column], expected(name, row, column))
          << name << " row " << row << " column " << column;
    }
  }
}

struct ModelCase {
  std::string file;
  int64_t head_dim;
  bool biases;
  bool norms;
  bool tied;
};

// Names the case; otherwise GoogleTest prints its bytes, addresses among them.
void PrintTo(const ModelCase& model, std::ostream* out) {
  *out << model.file;
}

class GgufModelFixture : public ::testing::TestWithParam<ModelCase> {};

TEST_P(GgufModelFixture, GivesHuggingFaceWeights) {
  const ModelCase& model = GetParam();
  const auto files = open_fixture(model.file + ".gguf");
  const auto store = files->load_weights(build_graph(files->config(), DType::kF32), {});
  const int64_t q = 4 * model.head_dim;
  const int64_t kv = 2 * model.head_dim;
  expect_formula(*store, "model.embed_tokens.weight", {10, 8});
  expect_formula(*store, "model.norm.weight", {8});
  EXPECT_EQ(files->config().tie_word_embeddings, model.tied);
  if (!model.tied) expect_formula(*store, "lm_head.weight", {10, 8});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    const auto expect = [&](const std::string& name, const Shape& shape) {
      expect_formula(*store, layer + name, shape);
    };
    expect("input_layernorm.weight", {8});
    expect("self_attn.q_proj.weight", {q, 8});
    expect("self_attn.k_proj.weight", {kv, 8});
    expect("self_attn.v_proj.weight", {kv, 8});
    expect("self_attn.o_proj.weight", {8, q});
    expect("post_attention_layernorm.weight", {8});
    expect("mlp.gate_proj.weight", {12, 8});
    expect("mlp.up_proj.weight", {12, 8});
    expect("mlp.down_proj.weight", {8, 12});
    if (model.biases) {
      expect("self_attn.q_proj.bias", {q});
      expect("self_attn.k_proj.bias", {kv});
      expect("self_attn.v_proj.bias", {kv});
    }
    if (model.norms) {
      expect("self_attn.q_norm.weight", {model.head_dim});
      expect("self_attn.k_norm.weight", {model.head_dim});
    }
  }
}

TEST_P(GgufModelFixture, GivesTheConfiguration) {
  const ModelCase& model = GetParam();
  const auto files = open_fixture(model.file + ".gguf");
  const ModelConfig& config = files->config();
  EXPECT_EQ(config.model_type, model.file == "llama3" ? "llama" : model.file);
  EXPECT_EQ(config.vocab_size, 10);
  EXPECT_EQ(config.hidden_size, 8);
  EXPECT_EQ(config.intermediate_size, 12);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, model.head_dim);
  EXPECT_EQ(config.max_position_embeddings, 256);
  EXPECT_EQ(config.qkv_bias, model.biases);
  EXPECT_FALSE(config.output_bias);
  EXPECT_FALSE(config.mlp_bias);
  EXPECT_EQ(files->generation_defaults().eos_ids, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(files->generation_defaults().bos_id, 1);
  EXPECT_EQ(files->chat_template(), "{{ messages[0]['content'] }}");
}

INSTANTIATE_TEST_SUITE_P(Families,
                         GgufModelFixture,
                         ::testing::Values(ModelCase{"llama", 4, true, false, false},
                                           ModelCase{"llama3", 16, false, false, false},
                                           ModelCase{"qwen2", 4, true, false, true},
                                           ModelCase{"qwen3", 4, false, true, false}),
                         [](const auto& test_case) { return test_case.param.file; });

// Rank 1 of 2 of q, k and v as one weight: q and k lie interleaved in the file, v does not.
TEST(GgufModel, GivesARanksRowsOfAFusedProjection) {
  const auto files = open_fixture("llama.gguf");
  const std::string prefix = "model.layers.1.self_attn.";
  WeightSource source;
  for (const auto& [name, rows] : {std::pair{"q", 16}, std::pair{"k", 8}, std::pair{"v", 8}}) {
    const WeightSource whole = whole_tensor(prefix + name + "_proj.weight", {rows, 8});
    source = stack(source, take_rows(whole, {rows / 2, rows / 2}));
  }
  Graph graph;
  graph.add_weight("qkv", {DType::kF32, RowAxis::kFixed, {16, 8}}, source);
  const auto store = files->load_weights(graph, {});
  const TensorView qkv = store->get("qkv");
  for (int64_t row = 0; row < 16; ++row) {
    const std::string name = prefix + (row < 8 ? "q" : row < 12 ? "k" : "v") + "_proj.weight";
    const int64_t stored_row = row < 8 ? 8 + row : row < 12 ? row - 4 : row - 8;
    for (int64_t column = 0; column < 8; ++column) {
      ASSERT_EQ(qkv.row<float>(row)[column], expected(name, stored_row, column))
          << "row " << row << " column " << column;
    }
  }
}

TEST(GgufModel, ReadsRopeScaling) {
  const auto llama3 = open_fixture("llama3.gguf");
  EXPECT_EQ(llama3->config().rope.type, RopeType::kLlama3);
  EXPECT_EQ(llama3->config().rope.factor, 8.0);
  EXPECT_EQ(llama3->config().rope.original_max_position_embeddings, 8192);
  EXPECT_EQ(llama3->config().rope.theta, 500000.0);
  const auto yarn = open_fixture("qwen2.gguf");
  EXPECT_EQ(yarn->config().rope.type, RopeType::kYarn);
  EXPECT_EQ(yarn->config().rope.factor, 4.0);
  EXPECT_EQ(yarn->config().rope.original_max_position_embeddings, 64);
}

TEST(GgufModel, ReadsTheVocabulary) {
  const MappedFile mapping(test::fixture_path("gguf/llama.gguf"));
  const GgufFile file = parse_gguf(mapping.bytes(), "llama.gguf");
  const GgufVocabulary vocabulary = read_gguf_vocabulary(file.metadata);
  EXPECT_EQ(vocabulary.model, "gpt2");
  EXPECT_EQ(vocabulary.pre, "smollm");
  ASSERT_EQ(vocabulary.tokens.size(), 10U);
  EXPECT_EQ(vocabulary.tokens[9], "abc");
  EXPECT_EQ(vocabulary.token_types, (std::vector<int32_t>{2, 3, 3, 3, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(vocabulary.merges, (std::vector<std::string>{"a b", "b c", "ab c"}));
  EXPECT_TRUE(vocabulary.scores.empty());
  EXPECT_EQ(vocabulary.bos_id, 1);
  EXPECT_EQ(vocabulary.eos_id, 2);
  EXPECT_EQ(vocabulary.unknown_id, 0);
  EXPECT_TRUE(vocabulary.add_bos);
  EXPECT_FALSE(vocabulary.add_eos);
  EXPECT_FALSE(vocabulary.add_space_prefix);
}

TEST(GgufModel, RefusesAVocabularyThatLies) {
  GgufMetadata metadata("file");
  EXPECT_THAT(error_of([&] { read_gguf_vocabulary(metadata); }), HasSubstr("no tokenizer"));
  metadata.add("tokenizer.ggml.model", std::string_view("llama"));
  const std::string tokens("\1\0\0\0\0\0\0\0a", 9);
  metadata.add("tokenizer.ggml.tokens", GgufArray{GgufType::kString, 1, test::bytes_of(tokens)});
  const std::string scores(8, '\0');
  metadata.add("tokenizer.ggml.scores", GgufArray{GgufType::kF32, 2, test::bytes_of(scores)});
  EXPECT_THAT(error_of([&] { read_gguf_vocabulary(metadata); }),
              HasSubstr("'tokenizer.ggml.scores' has 2 entries for 1 tokens"));
}

TEST(GgufModel, IsFoundAloneInAFolder) {
  const test::TemporaryFolder folder;
  std::filesystem::copy_file(test::fixture_path("gguf/qwen3.gguf"), folder.path() / "a.gguf");
  EXPECT_EQ(open_model(folder.path())->config().model_type, "qwen3");
  std::filesystem::copy_file(test::fixture_path("gguf/llama.gguf"), folder.path() / "b.gguf");
  EXPECT_THAT(error_of([&] { open_model(folder.path()); }, StatusCode::kNotFound),
              HasSubstr("2 GGUF files"));
}

// A llama file whose tensor names are changed in place, to others of the same length.
std::string refusal_with(const std::string& from, const std::string& to) {
  const test::TemporaryFolder folder;
  std::string bytes = read_text_file(test::fixture_path("gguf/llama.gguf"), 1 << 20);
  const size_t at = bytes.find(from);
  EXPECT_NE(at, std::string::npos);
  bytes.replace(at, to.size(), to);
  const auto path = folder.write("m.gguf", bytes);
  return error_of([&] { open_model(path); });
}

TEST(GgufModel, RefusesTensorsThatDoNotBelong) {
  EXPECT_THAT(refusal_with("blk.1.ffn_gate", "blk.1.ffn_late"),
              HasSubstr("'blk.1.ffn_late.weight' has no place in a llama model"));
  EXPECT_THAT(refusal_with("token_embd.weight", "token_embx.weight"),
              HasSubstr("'token_embd.weight' is missing"));
  EXPECT_THAT(refusal_with("blk.0.attn_v.weight", "blk.2.attn_q.weight"),
              HasSubstr("'blk.2.attn_q.weight' has no place in a llama model"));
}

}  // namespace
}  // namespace lamina
