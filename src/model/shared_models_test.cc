// Models of the `shared` data: real configurations, sharded against single files, heads that are
// stored where the embedding should be.
#include <gmock/gmock.h>

#include "base/file.h"
#include "model/builder.h"
#include "model/huggingface/config_json.h"
#include "model/model_files.h"
#include "support/paths.h"

namespace lamina {
namespace {

TEST(SharedModels, ShardsHoldTheSingleFileRounded) {
  LAMINA_SKIP_WITHOUT_SHARED("data/models/stories260K");
  const auto single = open_model(test::shared_path("data/models/stories260K"));
  const auto sharded = open_model(test::shared_path("data/models/stories260K-bf16-sharded"));
  EXPECT_EQ(single->config().stored_dtype, DType::kF32);
  EXPECT_EQ(sharded->config().stored_dtype, DType::kBF16);
  EXPECT_EQ(single->generation_defaults().eos_ids, (std::vector<int32_t>{1, 2}));
  const Graph graph = build_graph(single->config(), DType::kBF16);
  const auto a = single->load_weights(graph, {});
  const auto b = sharded->load_weights(graph, {});
  EXPECT_EQ(a->fingerprint(), b->fingerprint());
  EXPECT_EQ(a->resident_bytes(), b->resident_bytes());
  for (int32_t layer_idx = 0; layer_idx < single->config().num_layers; ++layer_idx) {
    const std::string name =
        "model.layers." + std::to_string(layer_idx) + ".self_attn.q_proj.weight";
    const TensorView x = a->get(name);
    const TensorView y = b->get(name);
    ASSERT_EQ(x.shape, y.shape);
    EXPECT_EQ(std::memcmp(x.data, y.data, x.size_bytes()), 0) << name;
  }
}

TEST(SharedModels, AStoredHeadStandsForTheEmbedding) {
  LAMINA_SKIP_WITHOUT_SHARED("data/models/tinystories-656K");
  const auto files = open_model(test::shared_path("data/models/tinystories-656K"));
  const auto store = files->load_weights(build_graph(files->config(), DType::kF32), {});
  EXPECT_EQ(files->config().head_dim, 16);
  EXPECT_EQ(store->get("model.embed_tokens.weight").shape, (Shape{2048, 128}));
}

TEST(SharedModels, PublishedConfigurationsAreRead) {
  LAMINA_SKIP_WITHOUT_SHARED("data/hardware/model_configs");
  const auto parse = [](const std::string& name) {
    const auto path = test::shared_path("data/hardware/model_configs/" + name);
    return parse_config_json(read_text_file(path, kMaxConfigBytes), name);
  };
  const ModelConfig llama = parse("meta-llama--Meta-Llama-3.1-70B_config.json");
  EXPECT_EQ(llama.rope.type, RopeType::kLlama3);
  EXPECT_EQ(llama.rope.original_max_position_embeddings, 8192);
  EXPECT_EQ(llama.head_dim, 128);
  const ModelConfig qwen = parse("Qwen--Qwen3-0.6B_config.json");
  EXPECT_EQ(qwen.head_dim, 128);
  EXPECT_EQ(qwen.rope.theta, 1e6);
  EXPECT_TRUE(qwen.tie_word_embeddings);
}

}  // namespace
}  // namespace lamina
