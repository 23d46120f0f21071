#include "planner/model_source.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "support/paths.h"

namespace lamina::planner {
namespace {

ModelWork work_of(const std::string& json) {
  const std::string path = ::testing::TempDir() + "planner_model_config.json";
  std::ofstream(path) << json;
  return read_model_work(path);
}

// Two layers of hidden size 64, 8 heads of 8, 2 KV heads.
constexpr const char* kLlama = R"({
  "model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 160,
  "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
  "max_position_embeddings": 128, "tie_word_embeddings": false})";

TEST(ModelSource, AConfigurationIsCountedByItsGraph) {
  const ModelWork work = work_of(kLlama);
  constexpr double kLayer = 2 * 64 * 64 + 2 * 64 * 16 + 3 * 64 * 160;
  constexpr double kHead = 100 * 64;
  EXPECT_EQ(work.num_layers, 2);
  EXPECT_EQ(work.num_kv_heads, 2);
  EXPECT_EQ(work.head_dim, 8);
  EXPECT_DOUBLE_EQ(work.flop_per_token, 2 * (2 * kLayer + kHead));
  EXPECT_DOUBLE_EQ(work.dense_bytes, 2 * (2 * kLayer + kHead));
  // Also stored: the embedding, and five norms.
  EXPECT_DOUBLE_EQ(work.weight_bytes, 2 * (2 * kLayer + 2 * kHead + 5 * 64));
  EXPECT_DOUBLE_EQ(work.q_bytes, 128);
  EXPECT_DOUBLE_EQ(work.kv_bytes, 64);
  EXPECT_DOUBLE_EQ(work.out_bytes, 128);
  EXPECT_NEAR(work.kv_projection_share, 2 * 64 * 16 / (kLayer + kHead / 2), 1e-9);
  EXPECT_TRUE(work.windows.empty());
  EXPECT_EQ(work.kv_layout(DType::kBF16, 16).block_bytes(), 2U * 2 * 2 * 8 * 16 * 2);
}

TEST(ModelSource, ExpertsAreReadByShares) {
  const ModelWork work = work_of(R"({
    "model_type": "mixtral", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
    "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 128,
    "sliding_window": null, "tie_word_embeddings": false})");
  EXPECT_DOUBLE_EQ(work.expert_share, 0.25);
  EXPECT_DOUBLE_EQ(work.expert_bytes, 2.0 * 2 * 8 * 3 * 64 * 32);
  EXPECT_DOUBLE_EQ(work.read_bytes(1), work.dense_bytes + work.expert_bytes / 4);
}

TEST(ModelSource, WhatIsNoModelIsRefused) {
  try {
    (void)read_model_work("llama-34b");
    FAIL() << "found llama-34b";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kNotFound);
    EXPECT_NE(std::string(error.what()).find("llama-33b, llama-65b, llama3-70b"),
              std::string::npos);
  }
  EXPECT_THROW((void)work_of("{}"), Error);
  EXPECT_THROW((void)work_of("nonsense"), Error);
}

// The published configuration of the paper's third model, with another label.
TEST(ModelSource, ThePublished70BIsNearThePapers) {
  LAMINA_SKIP_WITHOUT_SHARED("data/hardware/model_configs");
  const ModelWork paper = read_model_work("llama3-70b");
  const ModelWork published = read_model_work(
      test::shared_path("data/hardware/model_configs/meta-llama--Meta-Llama-3.1-70B_config.json"));
  EXPECT_NEAR(published.weight_bytes / 1e9, 141.1, 0.05);  // PAPER 12.23
  EXPECT_NEAR(published.weight_bytes / paper.weight_bytes, 1.0, 0.03);
  EXPECT_DOUBLE_EQ(published.q_bytes, paper.q_bytes);
  EXPECT_DOUBLE_EQ(published.kv_bytes, paper.kv_bytes);
  EXPECT_NEAR(published.kv_projection_share, paper.kv_projection_share, 0.002);
}

}  // namespace
}  // namespace lamina::planner
