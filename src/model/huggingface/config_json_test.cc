#include "model/huggingface/config_json.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/rng.h"
#include "model/huggingface/generation_json.h"
#include "model/huggingface/weight_index.h"
#include "model/testing/model_test_support.h"
#include "support/paths.h"

namespace lamina {
namespace {

using test::error_of;
using ::testing::Each;
using ::testing::HasSubstr;

nlohmann::json base_json(const std::string& model_type) {
  return {{"model_type", model_type},
          {"vocab_size", 100},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 4},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 256}};
}

// base_json with the members of `patch` laid over it.
ModelConfig parse(const std::string& model_type, const nlohmann::json& patch) {
  nlohmann::json json = base_json(model_type);
  if (!patch.is_null()) json.update(patch);
  return parse_config_json(json.dump(), "config.json");
}
std::string refusal(const std::string& model_type, const nlohmann::json& patch) {
  return error_of([&] { parse(model_type, patch); });
}

std::vector<std::optional<int32_t>> windows(std::initializer_list<int32_t> values) {
  std::vector<std::optional<int32_t>> list;
  for (const int32_t value : values) {
    list.push_back(value > 0 ? std::optional<int32_t>(value) : std::nullopt);
  }
  return list;
}

TEST(ConfigJson, ReadsEveryFixture) {
  struct Case {
    const char* folder;
    const char* model_type;
    int32_t num_kv_heads;
    int32_t head_dim;
    bool tied;
    bool qkv_bias;
  };
  for (const Case& expected : {Case{"llama-gqa", "llama", 2, 8, false, false},
                               Case{"llama-mha-tied", "llama", 8, 8, true, false},
                               Case{"llama3-rope", "llama", 2, 32, false, false},
                               Case{"mistral-swa", "mistral", 2, 8, false, false},
                               Case{"qwen2", "qwen2", 2, 8, false, true},
                               Case{"qwen3", "qwen3", 4, 32, false, false}}) {
    const auto path = test::fixture_path("models") / expected.folder / "config.json";
    const ModelConfig config = parse_config_json(read_text_file(path, kMaxConfigBytes), "c");
    EXPECT_EQ(config.model_type, expected.model_type);
    EXPECT_EQ(config.num_layers, 3);
    EXPECT_EQ(config.vocab_size, 512);
    EXPECT_EQ(config.num_kv_heads, expected.num_kv_heads) << expected.folder;
    EXPECT_EQ(config.head_dim, expected.head_dim) << expected.folder;
    EXPECT_EQ(config.tie_word_embeddings, expected.tied) << expected.folder;
    EXPECT_EQ(config.qkv_bias, expected.qkv_bias) << expected.folder;
    EXPECT_EQ(config.stored_dtype, DType::kF32);
    const bool slides = config.model_type == "mistral";
    EXPECT_THAT(config.windows, Each(slides ? std::optional<int32_t>(24) : std::nullopt));
    EXPECT_EQ(
        config.rope.type,
        expected.folder == std::string("llama3-rope") ? RopeType::kLlama3 : RopeType::kDefault);
  }
}

TEST(ConfigJson, ReadsBothStylesOfRope) {
  const nlohmann::json scaling = {{"rope_type", "llama3"},
                                  {"factor", 8.0},
                                  {"low_freq_factor", 1.0},
                                  {"high_freq_factor", 4.0},
                                  {"original_max_position_embeddings", 64}};
  nlohmann::json parameters = scaling;
  parameters["rope_theta"] = 500000.0;
  for (const nlohmann::json& patch :
       {nlohmann::json{{"rope_theta", 500000.0}, {"rope_scaling", scaling}},
        nlohmann::json{{"rope_parameters", parameters}},
        nlohmann::json{{"rope_parameters", scaling}, {"rope_theta", 500000}}}) {
    const RopeConfig rope = parse("llama", patch).rope;
    EXPECT_EQ(rope.type, RopeType::kLlama3);
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 64);
  }
  const RopeConfig old = parse("llama", {{"rope_theta", 5e4}, {"rope_scaling", nullptr}}).rope;
  EXPECT_EQ(old.type, RopeType::kDefault);
  EXPECT_EQ(old.theta, 5e4);
  EXPECT_EQ(parse("llama", {}).rope.theta, 10000.0);
  const RopeConfig linear =
      parse("llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}).rope;
  EXPECT_EQ(linear.type, RopeType::kLinear);
  EXPECT_EQ(linear.factor, 2.0);
  const RopeConfig dynamic =
      parse("llama", {{"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 3.0}}}}).rope;
  EXPECT_EQ(dynamic.type, RopeType::kDynamic);
  EXPECT_EQ(dynamic.original_max_position_embeddings, 0);
}

// The reference lets rope_scaling win: whoever adds it to a newer file means it.
TEST(ConfigJson, RefusesTwoDescriptionsOfRopeThatDiffer) {
  const nlohmann::json plain = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  const nlohmann::json yarn = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
  EXPECT_THAT(refusal("qwen3", {{"rope_parameters", plain}, {"rope_scaling", yarn}}),
              HasSubstr("'rope_parameters' and 'rope_scaling' differ"));
  for (const nlohmann::json& silent : {nlohmann::json(nullptr), nlohmann::json::object(), plain}) {
    const RopeConfig rope =
        parse("qwen3", {{"rope_parameters", plain}, {"rope_scaling", silent}}).rope;
    EXPECT_EQ(rope.type, RopeType::kDefault);
    EXPECT_EQ(rope.theta, 1e6);
  }
  EXPECT_EQ(parse("qwen3", {{"rope_parameters", nlohmann::json::object()}, {"rope_scaling", yarn}})
                .rope.type,
            RopeType::kYarn);
}

TEST(ConfigJson, ReadsYarn) {
  const RopeConfig rope = parse("qwen2",
                                {{"rope_scaling",
                                  {{"rope_type", "yarn"},
                                   {"factor", 4.0},
                                   {"original_max_position_embeddings", 64},
                                   {"beta_fast", 16},
                                   {"attention_factor", 1.25},
                                   {"mscale", nullptr},
                                   {"truncate", false}}}})
                              .rope;
  EXPECT_EQ(rope.type, RopeType::kYarn);
  EXPECT_EQ(rope.factor, 4.0);
  EXPECT_EQ(rope.beta_fast, 16.0);
  EXPECT_EQ(rope.beta_slow, 1.0);
  EXPECT_EQ(rope.attention_factor, 1.25);
  EXPECT_EQ(rope.mscale, std::nullopt);
  EXPECT_FALSE(rope.truncate);
  const RopeConfig ratio =
      parse(
          "qwen2",
          {{"rope_parameters", {{"rope_type", "yarn"}, {"original_max_position_embeddings", 64}}}})
          .rope;
  EXPECT_EQ(ratio.factor, 4.0);
}

TEST(ConfigJson, RefusesRopeByName) {
  const auto rope = [](const nlohmann::json& scaling) {
    return refusal("llama", {{"rope_scaling", scaling}});
  };
  EXPECT_THAT(rope({{"rope_type", "longrope"}}),
              HasSubstr("rope type 'longrope' is not supported"));
  EXPECT_THAT(rope({{"type", "su"}}), HasSubstr("rope type 'su' is not supported"));
  EXPECT_THAT(rope({{"type", "linear"}}), HasSubstr("'factor' is missing"));
  EXPECT_THAT(rope({{"type", "linear"}, {"factor", 0.5}}), HasSubstr("'factor'"));
  EXPECT_THAT(rope({{"type", "linear"}, {"factor", "2"}}), HasSubstr("'factor'"));
  EXPECT_THAT(rope({{"type", "yarn"}}), HasSubstr("'factor' is missing"));
  EXPECT_THAT(rope({{"type", "llama3"}, {"factor", 8}}), HasSubstr("original_max_position"));
  EXPECT_THAT(rope({{"full_attention", {{"rope_type", "default"}}}}), HasSubstr("layer type"));
  const nlohmann::json by_type = {{"full_attention", {{"rope_type", "default"}}}};
  EXPECT_THAT(refusal("gemma3_text", {{"rope_parameters", by_type}}),
              HasSubstr("'sliding_attention' is missing"));
  EXPECT_THAT(rope("linear"), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal("llama", {{"rope_theta", 0}}), HasSubstr("'rope_theta'"));
  EXPECT_THAT(refusal("llama", {{"partial_rotary_factor", 0.4}}), HasSubstr("rotary"));
}

TEST(ConfigJson, AssumesWhatTheReferenceDoes) {
  const nlohmann::json nulls = {{"head_dim", nullptr}, {"num_key_value_heads", nullptr}};
  EXPECT_EQ(parse("llama", nulls).head_dim, 8);
  EXPECT_EQ(parse("llama", nulls).num_kv_heads, 8);
  EXPECT_EQ(parse("qwen3", nulls).head_dim, 8);
  EXPECT_EQ(parse("qwen3", {}).head_dim, 128);
  EXPECT_EQ(parse("qwen2", {}).head_dim, 8);
  EXPECT_EQ(parse("mistral", {{"head_dim", 16}}).head_dim, 16);
  nlohmann::json silent = base_json("mistral");
  silent.erase("num_key_value_heads");
  silent.erase("max_position_embeddings");
  const ModelConfig mistral = parse_config_json(silent.dump(), "config.json");
  EXPECT_EQ(mistral.num_kv_heads, 8);
  EXPECT_EQ(mistral.max_position_embeddings, 131072);
  EXPECT_FLOAT_EQ(mistral.norm_eps, 1e-6F);
  EXPECT_FALSE(mistral.tie_word_embeddings);
}

TEST(ConfigJson, KnowsWhichBiasesAFamilyHas) {
  const nlohmann::json all = {{"attention_bias", true}, {"mlp_bias", true}};
  const ModelConfig llama = parse("llama", all);
  EXPECT_TRUE(llama.qkv_bias && llama.output_bias && llama.mlp_bias);
  const ModelConfig qwen3 = parse("qwen3", all);
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.output_bias && !qwen3.mlp_bias);
  const ModelConfig qwen2 = parse("qwen2", {});
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.output_bias && !qwen2.mlp_bias);
  const ModelConfig mistral = parse("mistral", all);
  EXPECT_TRUE(!mistral.qkv_bias && !mistral.output_bias && !mistral.mlp_bias);
}

TEST(ConfigJson, FollowsTheWindowRulesOfEachFamily) {
  const nlohmann::json mixed = {
      "full_attention", "sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_EQ(parse("llama", {{"sliding_window", 24}}).windows, windows({0, 0, 0, 0}));
  EXPECT_EQ(parse("mistral", {{"sliding_window", 24}}).windows, windows({24, 24, 24, 24}));
  EXPECT_EQ(parse("mistral", {{"sliding_window", nullptr}}).windows, windows({0, 0, 0, 0}));
  EXPECT_EQ(parse("mistral", {}).windows, windows({4096, 4096, 4096, 4096}));
  for (const char* qwen : {"qwen2", "qwen3"}) {
    EXPECT_EQ(parse(qwen, {{"sliding_window", 24}}).windows, windows({0, 0, 0, 0}));
    const nlohmann::json used = {{"sliding_window", 24}, {"use_sliding_window", true}};
    EXPECT_EQ(parse(qwen, used).windows, windows({0, 0, 0, 0}));  // max_window_layers is 28
    nlohmann::json late = used;
    late["max_window_layers"] = 3;
    EXPECT_EQ(parse(qwen, late).windows, windows({0, 0, 0, 24}));
    late["layer_types"] = mixed;
    EXPECT_EQ(parse(qwen, late).windows, windows({0, 24, 0, 24}));
    EXPECT_THAT(refusal(qwen, {{"layer_types", mixed}}), HasSubstr("no sliding window"));
    EXPECT_EQ(parse(qwen, {{"use_sliding_window", true}, {"max_window_layers", 0}}).windows,
              windows({4096, 4096, 4096, 4096}));
  }
  EXPECT_THAT(refusal("llama", {{"layer_types", mixed}}), HasSubstr("no sliding window"));
  EXPECT_THAT(refusal("mistral", {{"layer_types", mixed}}), HasSubstr("contradicts"));
  EXPECT_THAT(refusal("qwen2", {{"layer_types", {"full_attention"}}}), HasSubstr("list of 4"));
  const nlohmann::json chunked = {
      "full_attention", "chunked_attention", "full_attention", "full_attention"};
  EXPECT_THAT(refusal("qwen2", {{"layer_types", chunked}}),
              HasSubstr("layer type 'chunked_attention' is not supported"));
  EXPECT_THAT(refusal("mistral", {{"sliding_window", 0}}), HasSubstr("'sliding_window'"));
}

TEST(ConfigJson, RefusesByName) {
  EXPECT_THAT(refusal("gemma9", {}), HasSubstr("model_type 'gemma9' is not supported"));
  EXPECT_THAT(refusal("llama", {{"model_type", nullptr}}), HasSubstr("'model_type' is missing"));
  EXPECT_THAT(refusal("llama", {{"hidden_act", "gelu_10"}}), HasSubstr("hidden_act 'gelu_10'"));
  EXPECT_THAT(refusal("llama", {{"quantization_config", {{"quant_method", "gptq"}}}}),
              HasSubstr("quantization_config (quant_method 'gptq') is not supported"));
  EXPECT_THAT(refusal("llama", {{"architectures", {"LlamaForSequenceClassification"}}}),
              HasSubstr("LlamaForSequenceClassification"));
}

TEST(ConfigJson, RefusesNumbersThatLie) {
  for (const char* key : {"vocab_size",
                          "hidden_size",
                          "intermediate_size",
                          "num_hidden_layers",
                          "num_attention_heads"}) {
    for (const nlohmann::json& value : {nlohmann::json(-1),
                                        nlohmann::json(0),
                                        nlohmann::json(1e300),
                                        nlohmann::json("64"),
                                        nlohmann::json(UINT64_MAX),
                                        nlohmann::json(2147483648U),
                                        nlohmann::json(64.5),
                                        nlohmann::json::array({1})}) {
      EXPECT_THAT(refusal("llama", {{key, value}}), HasSubstr(key));
    }
    EXPECT_THAT(refusal("llama", {{key, nullptr}}), HasSubstr(key));
  }
  EXPECT_THAT(refusal("llama", {{"num_key_value_heads", 3}}), HasSubstr("3 key-value heads"));
  EXPECT_THAT(refusal("llama", {{"hidden_size", 63}}), HasSubstr("hidden_size 63"));
  EXPECT_THAT(refusal("llama", {{"head_dim", 7}}), HasSubstr("head_dim is 7"));
  EXPECT_THAT(refusal("llama", {{"rms_norm_eps", -1}}), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(refusal("llama", {{"tie_word_embeddings", 1}}), HasSubstr("true or false"));
}

TEST(ConfigJson, RefusesTextThatIsNoObject) {
  const auto text = [](const std::string& json) {
    return error_of([&] { parse_config_json(json, "config.json"); });
  };
  EXPECT_THAT(text(""), HasSubstr("config.json: not JSON"));
  EXPECT_THAT(text("[1]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(text("{\"a\": 1e999}"), HasSubstr("JSON"));
  std::string deep = "{\"a\":";
  deep += std::string(200000, '[');
  EXPECT_THAT(text(deep), HasSubstr("nested deeper"));
  std::string many = "{\"a\":[0";
  for (int i = 0; i < 1 << 20; ++i) many += ",0";
  EXPECT_THAT(text(many + "]}"), HasSubstr("more than 1048576 values"));
  const std::string whole = base_json("llama").dump();
  for (size_t size = 0; size < whole.size(); ++size) text(whole.substr(0, size));
}

TEST(GenerationJson, ReadsIdsAndDefaults) {
  const auto parse_text = [](const std::string& text) {
    return parse_generation_json(text, "generation_config.json", 100);
  };
  const GenerationDefaults list = parse_text(
      R"({"eos_token_id": [1, 2, 2, 100, -1], "bos_token_id": 1, "temperature": 0.6,
          "top_p": 0.9, "top_k": 20, "min_p": null, "repetition_penalty": 1.05})");
  EXPECT_EQ(list.eos_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(list.bos_id, 1);
  EXPECT_EQ(list.temperature, 0.6F);
  EXPECT_EQ(list.top_p, 0.9F);
  EXPECT_EQ(list.top_k, 20);
  EXPECT_EQ(list.min_p, std::nullopt);
  EXPECT_EQ(list.repetition_penalty, 1.05F);
  EXPECT_EQ(parse_text(R"({"eos_token_id": 2})").eos_ids, (std::vector<int32_t>{2}));
  EXPECT_TRUE(parse_text(R"({"eos_token_id": null})").eos_ids.empty());
  EXPECT_THAT(error_of([&] { parse_text(R"({"eos_token_id": "2"})"); }),
              HasSubstr("'eos_token_id'"));
  EXPECT_THAT(error_of([&] { parse_text(R"({"top_p": 0})"); }), HasSubstr("'top_p'"));
  EXPECT_THAT(error_of([&] { parse_text(R"({"top_k": -2})"); }), HasSubstr("'top_k'"));
}

TEST(WeightIndex, ConfinesShardsToTheFolder) {
  const auto parse_map = [](const std::string& shard) {
    const nlohmann::json json = {{"weight_map", {{"t", shard}}}};
    return parse_weight_index(json.dump(), "index");
  };
  EXPECT_EQ(parse_map("model-00001-of-00002.safetensors").at("t"),
            "model-00001-of-00002.safetensors");
  for (const std::string& shard : {std::string("../x.safetensors"),
                                   std::string("/etc/x.safetensors"),
                                   std::string("a/../../x.safetensors"),
                                   std::string(".."),
                                   std::string(""),
                                   std::string("passwd"),
                                   std::string("x\0.safetensors", 14)}) {
    EXPECT_THAT(error_of([&] { parse_map(shard); }), HasSubstr("tensor 't'")) << shard;
  }
  for (const std::string text :
       {R"({})", R"({"weight_map": []})", R"({"weight_map": {}})", R"({"weight_map": {"t": 1}})"}) {
    error_of([&] { parse_weight_index(text, "index"); });
  }
}

}  // namespace
}  // namespace lamina
