#include "model/huggingface/hf_model.h"

#include <gmock/gmock.h>

#include <cstring>

#include "base/file.h"
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
  const auto f32 = files->load_weights(DType::kF32, nullptr);
  const auto bf16 = files->load_weights(DType::kBF16, nullptr);
  const ModelConfig& config = files->config();
  for (const std::string& name : {std::string("model.embed_tokens.weight"),
                                  std::string("model.layers.2.self_attn.k_proj.weight"),
                                  std::string("lm_head.weight")}) {
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
  EXPECT_EQ(f32->fingerprint(), files->load_weights(DType::kF32, nullptr)->fingerprint());
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

TEST(HfModel, TiesHeadAndEmbeddingAsTheConfigurationSays) {
  const std::string embedding = "model.embed_tokens.weight";
  const std::string head = "lm_head.weight";
  const TemporaryFolder folder;
  const auto has = [&](bool tied, const std::vector<std::string>& names) {
    folder.write("config.json", small_config(tied));
    folder.write("model.safetensors", weights(names));
    return open_model(folder.path())->load_weights(DType::kF32, nullptr);
  };
  for (const auto& names :
       {std::vector{embedding}, std::vector{head}, std::vector{head, embedding}}) {
    const auto store = has(true, names);
    EXPECT_EQ(store->get(head).data, store->get(embedding).data);
  }
  const auto store = has(false, {head, embedding});
  EXPECT_NE(store->get(head).data, store->get(embedding).data);
  EXPECT_THAT(error_of([&] { has(false, {embedding}); }), HasSubstr("'lm_head.weight' is missing"));
  EXPECT_THAT(error_of([&] { has(false, {head}); }), HasSubstr("embed_tokens.weight' is missing"));
  EXPECT_THAT(error_of([&] { has(true, {"x"}); }), HasSubstr("embed_tokens.weight' is missing"));
}

TEST(HfModel, ReadsShards) {
  const TemporaryFolder folder;
  folder.write("config.json", small_config(true));
  folder.write("a.safetensors", weights({"model.embed_tokens.weight", "unlisted"}, 1.0F));
  folder.write("b.safetensors", weights({"model.norm.weight"}, 2.0F));
  folder.write("model.safetensors.index.json",
               R"({"metadata":{},"weight_map":{"model.norm.weight":"b.safetensors",)"
               R"("model.embed_tokens.weight":"a.safetensors"}})");
  const auto store = open_model(folder.path())->load_weights(DType::kF32, nullptr);
  EXPECT_EQ(*store->get("model.embed_tokens.weight").as<float>(), 1.0F);
  EXPECT_EQ(*store->get("model.norm.weight").as<float>(), 2.0F);
  EXPECT_FALSE(store->has("unlisted"));
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
