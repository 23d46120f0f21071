#include "model/gguf/gguf_config.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numbers>

#include "base/file.h"
#include "model/gguf/gguf_rope.h"
#include "model/gguf/gguf_tensors.h"
#include "model/testing/model_test_support.h"
#include "support/paths.h"

namespace lamina {
namespace {

using test::error_of;
using ::testing::HasSubstr;

// Metadata as a file would hold it, from pairs; strings live as long as the test's literals.
using Pairs = std::vector<std::pair<std::string_view, GgufValue>>;

Pairs llama_pairs() {
  return {{"general.architecture", std::string_view("llama")},
          {"llama.block_count", int64_t{2}},
          {"llama.context_length", int64_t{128}},
          {"llama.embedding_length", int64_t{32}},
          {"llama.feed_forward_length", int64_t{64}},
          {"llama.attention.head_count", int64_t{4}},
          {"llama.attention.layer_norm_rms_epsilon", 1e-5}};
}

GgufFile file_of(const Pairs& pairs) {
  GgufFile file{GgufMetadata("file"), {}};
  for (const auto& [key, value] : pairs) file.metadata.add(key, value);
  file.tensors.push_back({"token_embd.weight", StoredType::kF16, Shape{100, 32}, 0, 6400});
  return file;
}
ModelConfig config_of(Pairs pairs, const Pairs& more = {}) {
  pairs.insert(pairs.end(), more.begin(), more.end());
  return read_gguf_config(file_of(pairs), {});
}
std::string refusal(const Pairs& more) {
  return error_of([&] { config_of(llama_pairs(), more); });
}

TEST(GgufConfig, ReadsLlamaWithDefaults) {
  const ModelConfig config = config_of(llama_pairs());
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.max_position_embeddings, 128);
  EXPECT_FLOAT_EQ(config.norm_eps, 1e-5F);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.rope.type, RopeType::kDefault);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.windows, (std::vector<std::optional<int32_t>>(2)));
  EXPECT_EQ(config.stored_dtype, DType::kF16);
}

TEST(GgufConfig, TakesAWindowedLlamaForMistral) {
  const ModelConfig config =
      config_of(llama_pairs(), {{"llama.attention.sliding_window", int64_t{64}}});
  EXPECT_EQ(config.model_type, "mistral");
  EXPECT_EQ(config.windows, (std::vector<std::optional<int32_t>>{64, 64}));
}

TEST(GgufConfig, ReadsRopeScaling) {
  const ModelConfig linear = config_of(llama_pairs(),
                                       {{"llama.rope.scaling.type", std::string_view("linear")},
                                        {"llama.rope.scaling.factor", 4.0}});
  EXPECT_EQ(linear.rope.type, RopeType::kLinear);
  EXPECT_EQ(linear.rope.factor, 4.0);
  const ModelConfig old = config_of(llama_pairs(), {{"llama.rope.scale_linear", 2.0}});
  EXPECT_EQ(old.rope.type, RopeType::kLinear);
  EXPECT_EQ(old.rope.factor, 2.0);
  const ModelConfig none = config_of(
      llama_pairs(),
      {{"llama.rope.scaling.type", std::string_view("none")}, {"llama.rope.scaling.factor", 4.0}});
  EXPECT_EQ(none.rope.type, RopeType::kDefault);
  EXPECT_EQ(none.rope.factor, 1.0);
  // As llama.cpp reads it: a factor alone is linear, the newer spelling wins, "none" undoes both.
  const ModelConfig untyped = config_of(
      llama_pairs(), {{"llama.rope.scaling.factor", 4.0}, {"llama.rope.scale_linear", 2.0}});
  EXPECT_EQ(untyped.rope.type, RopeType::kLinear);
  EXPECT_EQ(untyped.rope.factor, 4.0);
  const ModelConfig undone = config_of(
      llama_pairs(),
      {{"llama.rope.scaling.type", std::string_view("none")}, {"llama.rope.scale_linear", 2.0}});
  EXPECT_EQ(undone.rope.type, RopeType::kDefault);
  EXPECT_EQ(undone.rope.factor, 1.0);
}

TEST(GgufConfig, RefusesByName) {
  EXPECT_THAT(error_of([] { config_of({{"general.architecture", std::string_view("gemma2")}}); }),
              HasSubstr("architecture 'gemma2' is not supported"));
  EXPECT_THAT(error_of([] { config_of({}); }), HasSubstr("architecture ''"));
  EXPECT_THAT(refusal({{"llama.expert_count", int64_t{8}}}), HasSubstr("experts"));
  EXPECT_THAT(refusal({{"split.count", int64_t{2}}}), HasSubstr("split"));
  EXPECT_THAT(refusal({{"llama.attention.scale", 0.5}}), HasSubstr("attention.scale"));
  EXPECT_THAT(refusal({{"llama.rope.scaling.type", std::string_view("longrope")}}),
              HasSubstr("rope type 'longrope' is not supported"));
  EXPECT_THAT(refusal({{"llama.rope.scaling.type", std::string_view("yarn")},
                       {"llama.rope.scaling.factor", 4.0},
                       {"llama.rope.scaling.attn_factor", 1.5}}),
              HasSubstr("attn_factor"));
  EXPECT_THAT(refusal({{"llama.rope.scaling.attn_factor", 1.5}}), HasSubstr("attn_factor"));
  EXPECT_THAT(refusal({{"llama.rope.scaling.type", std::string_view("yarn")}}),
              HasSubstr("scaling.factor' is missing"));
  EXPECT_THAT(refusal({{"llama.attention.causal", false}}), HasSubstr("attention.causal"));
  EXPECT_THAT(refusal({{"llama.attention.value_length", int64_t{16}}}), HasSubstr("values of 16"));
  EXPECT_THAT(refusal({{"llama.attention.head_count_kv", int64_t{3}}}), HasSubstr("3 key-value"));
  EXPECT_THAT(refusal({{"llama.attention.head_count_kv", int64_t{0}}}), HasSubstr("head_count_kv"));
  EXPECT_THAT(refusal({{"llama.rope.freq_base", std::nan("")}}), HasSubstr("freq_base"));
  EXPECT_THAT(refusal({{"llama.rope.dimension_count", int64_t{4}}}),
              HasSubstr("'llama.rope.dimension_count' is 4 of a head's 8 elements"));
  Pairs missing = llama_pairs();
  missing.erase(missing.begin() + 1);
  EXPECT_THAT(error_of([&] { config_of(missing); }), HasSubstr("'llama.block_count' is missing"));
}

// Divisors of llama3 scaling by the published formula, for a head of 64.
std::vector<float> llama3_divisors(double factor, double original) {
  std::vector<float> divisors;
  for (int i = 0; i < 32; ++i) {
    const double wavelength = 2 * std::numbers::pi * std::pow(500000.0, i / 32.0);
    const double smooth = (original / wavelength - 1.0) / 3.0;
    const double mixed = 1.0 / ((1.0 - smooth) / factor + smooth);
    divisors.push_back(static_cast<float>(smooth > 1 ? 1.0 : smooth < 0 ? factor : mixed));
  }
  return divisors;
}

TEST(GgufRope, FindsTheLlama3ParametersBehindDivisors) {
  GgufMetadata metadata("file");
  metadata.add("llama.rope.freq_base", 500000.0);
  for (const double factor : {8.0, 32.0}) {
    const RopeConfig rope = read_gguf_rope(metadata, "llama", 64, llama3_divisors(factor, 8192));
    EXPECT_EQ(rope.type, RopeType::kLlama3);
    EXPECT_EQ(rope.factor, factor);
    EXPECT_EQ(rope.low_freq_factor, 1.0);
    EXPECT_EQ(rope.high_freq_factor, 4.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 8192);
  }
  const std::vector<float> ones(32, 1.0F);
  EXPECT_EQ(read_gguf_rope(metadata, "llama", 64, ones).type, RopeType::kDefault);
  std::vector<float> odd = llama3_divisors(8.0, 8192);
  odd[0] = 1.01F;
  EXPECT_THAT(error_of([&] { read_gguf_rope(metadata, "llama", 64, odd); }),
              HasSubstr("rope_freqs.weight"));
  odd[0] = std::nanf("");
  EXPECT_THAT(error_of([&] { read_gguf_rope(metadata, "llama", 64, odd); }),
              HasSubstr("rope_freqs.weight"));
  EXPECT_THAT(error_of([&] { read_gguf_rope(metadata, "llama", 32, odd); }),
              HasSubstr("32 elements, expected 16"));
}

TEST(GgufConfig, ReadsGenerationDefaults) {
  GgufMetadata metadata("file");
  metadata.add("tokenizer.ggml.eos_token_id", int64_t{2});
  metadata.add("tokenizer.ggml.eot_token_id", int64_t{7});
  metadata.add("tokenizer.ggml.eom_token_id", int64_t{2});
  metadata.add("tokenizer.ggml.bos_token_id", int64_t{4294967295});
  metadata.add("general.sampling.temp", 0.5);
  metadata.add("general.sampling.top_k", int64_t{20});
  const GenerationDefaults defaults = read_gguf_generation_defaults(metadata, 10);
  EXPECT_EQ(defaults.eos_ids, (std::vector<int32_t>{2, 7}));
  EXPECT_EQ(defaults.bos_id, std::nullopt);
  EXPECT_EQ(defaults.temperature, 0.5F);
  EXPECT_EQ(defaults.top_k, 20);
  EXPECT_EQ(defaults.top_p, std::nullopt);
}

TEST(GgufNames, MapOurFamiliesAndNothingElse) {
  EXPECT_EQ(hugging_face_name("token_embd.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(hugging_face_name("blk.31.ffn_down.weight"), "model.layers.31.mlp.down_proj.weight");
  EXPECT_EQ(hugging_face_name("blk.0.attn_k_norm.weight"),
            "model.layers.0.self_attn.k_norm.weight");
  EXPECT_EQ(hugging_face_name("blk.0.attn_q.bias"), "model.layers.0.self_attn.q_proj.bias");
  for (const char* name : {"",
                           "blk.",
                           "blk..attn_q.weight",
                           "blk.0.attn_q",
                           "blk.0.weight",
                           "blk.01.attn_q.weight",
                           "blk.x.attn_q.weight",
                           "blk.0.attn_q.scale",
                           "blk.0.attn_qkv.weight",
                           "blk.99999.attn_q.weight",
                           "output",
                           "xblk.0.attn_q.weight"}) {
    EXPECT_EQ(hugging_face_name(name), std::nullopt) << name;
  }
}

std::vector<StoredTensor> listed(const std::string& model_type,
                                 std::string_view name,
                                 StoredType type,
                                 const Shape& shape) {
  GgufFile file = file_of(llama_pairs());
  file.tensors.push_back({name, type, shape, 0, 0});
  ModelConfig config = config_of(llama_pairs());
  config.model_type = model_type;
  config.num_heads = 8;
  config.num_kv_heads = 8;
  return list_gguf_tensors(file, config, nullptr);
}

TEST(GgufTensors, RefuseWhatTheModelWouldIgnore) {
  const auto refused = [](const std::string& model_type, std::string_view name) {
    return error_of([&] { listed(model_type, name, StoredType::kF32, Shape{64}); });
  };
  for (const std::string_view name : {"blk.2.ffn_norm.weight",
                                      "blk.0.attn_norm.bias",
                                      "blk.0.attn_v.bias",
                                      "blk.0.attn_output.bias",
                                      "blk.0.ffn_down.bias",
                                      "blk.0.attn_q_norm.weight"}) {
    EXPECT_THAT(refused("llama", name), HasSubstr("has no place in a llama model"));
  }
  EXPECT_EQ(listed("qwen3", "blk.1.attn_q_norm.weight", StoredType::kF32, Shape{8}).back().name,
            "model.layers.1.self_attn.q_norm.weight");
}

TEST(GgufTensors, RefuseRowsThatAreNoHeads) {
  EXPECT_THAT(
      error_of([] { listed("llama", "blk.1.attn_k.weight", StoredType::kF32, Shape{8, 8}); }),
      HasSubstr("'blk.1.attn_k.weight' has shape [8, 8], but 8 heads of 8 rows each"));
}

// One row holds no whole block then, so that reordering rows would write past them.
TEST(GgufTensors, RefuseQuantisedVectorsWhoseRowsAreReordered) {
  EXPECT_THAT(
      error_of([] { listed("llama", "blk.0.attn_q.weight", StoredType::kQ4_0, Shape{64}); }),
      HasSubstr("'blk.0.attn_q.weight' has shape [64], whose rows are no whole blocks"));
}

}  // namespace
}  // namespace lamina
