#include "model/huggingface/hf_model.h"

#include <gmock/gmock.h>

#include <cstring>

#include "base/file.h"
#include "model/builder.h"
#include "model/model_files.h"
#include "model/testing/model_test_support.h"
#include "support/paths.h"

namespace lamina {
namespace {

using test::error_of;
using test::raw;
using test::safetensors_bytes;
using test::TemporaryFolder;
using ::testing::HasSubstr;

class HfFixture : public ::testing::TestWithParam<const char*> {};

// Fixture weights are exact in bf16: both dtypes hold the same numbers.
TEST_P(HfFixture, LoadsInEveryDtype) {
  const auto files = open_model(test::fixture_path("models") / GetParam());
  const ModelConfig& config = files->config();
  const Graph f32_graph = build_graph(config, DType::kF32);
  const auto f32 = files->load_weights(f32_graph, {});
  const auto bf16 = files->load_weights(build_graph(config, DType::kBF16), {});
  for (const std::string& name : {std::string("model.embed_tokens.weight"),
                                  std::string("model.layers.2.self_attn.k_proj.weight")}) {
    const TensorView a = f32->get(name);
    const TensorView b = bf16->get(name);
    ASSERT_EQ(a.shape, b.shape);
    ASSERT_EQ(a.shape[1], config.hidden_size);
    for (int64_t i = 0; i < a.shape.num_elements(); ++i) {
      ASSERT_EQ(a.as<float>()[i], to_f32(b.as<BFloat16>()[i])) << name << " element " << i;
    }
  }
  EXPECT_EQ(2 * bf16->resident_bytes(), f32->resident_bytes());
  EXPECT_NE(f32->fingerprint(), bf16->fingerprint());
  EXPECT_EQ(f32->fingerprint(), files->load_weights(f32_graph, {})->fingerprint());
  EXPECT_EQ(files->generation_defaults().eos_ids, (std::vector<int32_t>{2}));
  EXPECT_EQ(files->generation_defaults().bos_id, 1);
  EXPECT_EQ(files->chat_template(), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         HfFixture,
                         ::testing::Values("llama-gqa",
                                           "llama-mha-tied",
                                           "llama3-rope",
                                           "mistral-swa",
                                           "qwen2",
                                           "qwen3"),
                         [](const auto& test_case) {
                           std::string name = test_case.param;
                           std::erase(name, '-');
                           return name;
                         });

// A folder with a configuration of one layer; tests add weights.
std::string small_config(bool tied) {
  return std::string(R"({"model_type":"llama","vocab_size":2,"hidden_size":2,)") +
         R"("intermediate_size":2,"num_hidden_layers":1,"num_attention_heads":1,)" +
         R"("eos_token_id":1,"tie_word_embeddings":)" + (tied ? "true" : "false") + "}";
}

// One F32 tensor [1] of `value` for each name.
std::string weights(const std::vector<std::string>& names, float value = 1.0F) {
  std::string header = "{";
  std::string data;
  for (const std::string& name : names) {
    header += (data.empty() ? "\"" : ",\"") + name +
              R"(":{"dtype":"F32","shape":[1],"data_offsets":[)" + std::to_string(data.size()) +
              "," + std::to_string(data.size() + 4) + "]}";
    data += raw<float>({value});
  }
  return safetensors_bytes(header + "}", data);
}

// A graph of weights [1] in f32.
Graph graph_of(const std::vector<std::string>& names) {
  Graph graph;
  for (const std::string& name : names) {
    graph.add_weight(name, {DType::kF32, RowAxis::kFixed, Shape{1}});
  }
  return graph;
}

TEST(HfModel, LetsHeadAndEmbeddingStandForEachOtherWhereOneIsNamed) {
  const std::string embedding = "model.embed_tokens.weight";
  const std::string head = "lm_head.weight";
  const TemporaryFolder folder;
  folder.write("config.json", small_config(true));
  const auto load = [&](const std::vector<std::string>& named,
                        const std::vector<std::string>& stored) {
    folder.write("model.safetensors", weights(stored));
    return open_model(folder.path())->load_weights(graph_of(named), {});
  };
  for (const std::string& named : {head, embedding}) {
    for (const std::string& stored : {head, embedding}) {
      EXPECT_EQ(*load({named}, {stored})->get(named).as<float>(), 1.0F) << named << " " << stored;
    }
    EXPECT_THAT(error_of([&] { load({named}, {"x"}); }), HasSubstr("lack tensor '" + named));
  }
  const auto both = load({head, embedding}, {head, embedding});
  EXPECT_NE(both->get(head).data, both->get(embedding).data);
  EXPECT_THAT(error_of([&] { load({head, embedding}, {embedding}); }),
              HasSubstr("lack tensor 'lm_head.weight' [1]"));
}

TEST(HfModel, ReadsShards) {
  const TemporaryFolder folder;
  folder.write("config.json", small_config(true));
  folder.write("a.safetensors", weights({"model.embed_tokens.weight", "unlisted"}, 1.0F));
  folder.write("b.safetensors", weights({"model.norm.weight"}, 2.0F));
  folder.write("model.safetensors.index.json",
               R"({"metadata":{},"weight_map":{"model.norm.weight":"b.safetensors",)"
               R"("model.embed_tokens.weight":"a.safetensors"}})");
  const auto files = open_model(folder.path());
  Graph graph = graph_of({"model.embed_tokens.weight", "model.norm.weight"});
  graph.add_weight("both",
                   {DType::kF32, RowAxis::kFixed, Shape{2}},
                   stack(whole_tensor("model.norm.weight", {1}),
                         whole_tensor("model.embed_tokens.weight", {1})));
  const auto store = files->load_weights(graph, {});
  EXPECT_EQ(*store->get("model.embed_tokens.weight").as<float>(), 1.0F);
  EXPECT_EQ(*store->get("model.norm.weight").as<float>(), 2.0F);
  EXPECT_EQ(store->get("both").as<float>()[0], 2.0F);
  EXPECT_EQ(store->get("both").as<float>()[1], 1.0F);
  EXPECT_THAT(error_of([&] { files->load_weights(graph_of({"unlisted"}), {}); }),
              HasSubstr("lack tensor 'unlisted'"));
}

// Two halves of a block: elements of 0.5 scaled by 2, and of -6 scaled by 2.
TEST(HfModel, ReadsMxfp4) {
  const TemporaryFolder folder;
  folder.write("config.json", small_config(true));
  folder.write(
      "model.safetensors",
      safetensors_bytes(R"({"w_blocks":{"dtype":"U8","shape":[1,1,1,16],"data_offsets":[0,16]},)"
                        R"("w_scales":{"dtype":"U8","shape":[1,1,1],"data_offsets":[16,17]}})",
                        std::string(8, '\x11') + std::string(8, '\xFF') + '\x80'));
  Graph graph;
  graph.add_weight("w_blocks", {DType::kBF16, RowAxis::kFixed, Shape{1, 1, 32}});
  const auto store = open_model(folder.path())->load_weights(graph, {});
  const auto* values = store->get("w_blocks").as<BFloat16>();
  for (int i = 0; i < 32; ++i) EXPECT_EQ(to_f32(values[i]), i < 16 ? 1.0F : -12.0F) << i;
  EXPECT_THAT(
      error_of([&] { open_model(folder.path())->load_weights(graph_of({"w_scales"}), {}); }),
      HasSubstr("'w_scales' has dtype U8, which is not supported"));
}

TEST(HfModel, RefusesAnIndexThatLies) {
  const TemporaryFolder folder;
  folder.write("config.json", small_config(true));
  folder.write("a.safetensors", weights({"model.embed_tokens.weight"}));
  const auto refusal = [&](const std::string& map, StatusCode code) {
    folder.write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
    return error_of([&] { open_model(folder.path()); }, code);
  };
  EXPECT_THAT(refusal(R"("model.norm.weight":"a.safetensors")", StatusCode::kInvalidArgument),
              HasSubstr("'a.safetensors' has no tensor 'model.norm.weight'"));
  EXPECT_THAT(refusal(R"("model.norm.weight":"absent.safetensors")", StatusCode::kNotFound),
              HasSubstr("absent.safetensors"));
  EXPECT_THAT(refusal(R"("x":"../a.safetensors")", StatusCode::kInvalidArgument),
              HasSubstr("../a.safetensors"));
}

TEST(HfModel, SaysWhatIsMissing) {
  const TemporaryFolder folder;
  const auto refusal = [&] {
    return error_of([&] { open_model(folder.path()); }, StatusCode::kNotFound);
  };
  EXPECT_THAT(refusal(), HasSubstr("no config.json"));
  folder.write("config.json", small_config(true));
  EXPECT_THAT(refusal(), HasSubstr("no model.safetensors"));
  folder.write("pytorch_model.bin", "x");
  EXPECT_THAT(refusal(), HasSubstr("pytorch_model.bin is not supported"));
  EXPECT_THAT(error_of([&] { open_model(folder.path() / "absent"); }, StatusCode::kNotFound),
              HasSubstr("absent"));
  EXPECT_THAT(error_of([&] { open_model(folder.path() / "config.json"); }),
              HasSubstr("not a GGUF file"));
}

// As an interrupted download leaves them: without its generation_config.json a model would lose its
// stop ids in silence.
TEST(HfModel, NamesLinksThatLeadNowhere) {
  for (const char* name : {"generation_config.json",
                           "chat_template.jinja",
                           "tokenizer_config.json",
                           "model.safetensors",
                           "model.safetensors.index.json"}) {
    const TemporaryFolder folder;
    folder.write("config.json", small_config(true));
    if (!std::string(name).starts_with("model.")) {
      folder.write("model.safetensors", weights({"model.embed_tokens.weight"}));
    }
    std::filesystem::create_symlink("absent", folder.path() / name);
    EXPECT_THAT(error_of([&] { open_model(folder.path()); }, StatusCode::kNotFound),
                HasSubstr(std::string("cannot open '") + (folder.path() / name).string()));
    std::filesystem::remove(folder.path() / name);
    std::filesystem::create_symlink(name, folder.path() / name);
    EXPECT_THAT(error_of([&] { open_model(folder.path()); }), HasSubstr(name));
  }
}

TEST(HfModel, FindsTheChatTemplate) {
  const TemporaryFolder folder;
  folder.write("config.json", small_config(true));
  folder.write("model.safetensors", weights({"model.embed_tokens.weight"}));
  const auto found = [&](const std::string& tokenizer_config) {
    folder.write("tokenizer_config.json", tokenizer_config);
    return open_model(folder.path())->chat_template();
  };
  EXPECT_EQ(found("{}"), std::nullopt);
  EXPECT_EQ(found(R"({"chat_template": "one"})"), "one");
  EXPECT_EQ(found(R"({"chat_template": [{"name": "tool_use", "template": "no"},)"
                  R"({"name": "default", "template": "yes"}]})"),
            "yes");
  EXPECT_EQ(found(R"({"chat_template": [{"name": "tool_use", "template": "no"}]})"), std::nullopt);
  EXPECT_THAT(error_of([&] { found(R"({"chat_template": 1})"); }), HasSubstr("'chat_template'"));
  EXPECT_THAT(error_of([&] { found(R"({"chat_template": [1]})"); }), HasSubstr("chat_template"));
  folder.write("chat_template.jinja", "file");
  EXPECT_EQ(found(R"({"chat_template": "one"})"), "file");
}

TEST(HfModel, TakesStopIdsFromTheConfigurationWhereGenerationHasNone) {
  const TemporaryFolder folder;
  folder.write("config.json", small_config(true));
  folder.write("model.safetensors", weights({"model.embed_tokens.weight"}));
  EXPECT_EQ(open_model(folder.path())->generation_defaults().eos_ids, (std::vector<int32_t>{1}));
  folder.write("generation_config.json", R"({"top_k": 5})");
  EXPECT_EQ(open_model(folder.path())->generation_defaults().eos_ids, (std::vector<int32_t>{1}));
  EXPECT_EQ(open_model(folder.path())->generation_defaults().top_k, 5);
  folder.write("generation_config.json", R"({"eos_token_id": [0]})");
  EXPECT_EQ(open_model(folder.path())->generation_defaults().eos_ids, (std::vector<int32_t>{0}));
}

}  // namespace
}  // namespace lamina
