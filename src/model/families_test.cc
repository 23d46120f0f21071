// Every tiny model of tests/fixtures against the builder of its family, without computing: the
// graph reads exactly the tensors that the reference implementation wrote, each in the shape it
// has.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "model/builder.h"
#include "model/family.h"
#include "model/huggingface/config_json.h"
#include "model/safetensors/safetensors_file.h"
#include "model/weights/loaded_weights.h"
#include "support/paths.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(test::fixture_path("models"))) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

ModelConfig config_of(const std::string& fixture) {
  const fs::path path = test::fixture_path("models/" + fixture) / "config.json";
  return parse_config_json(read_text_file(path, kMaxConfigBytes), path.string());
}

class FixtureTest : public ::testing::TestWithParam<std::string> {};

TEST_P(FixtureTest, GraphReadsExactlyTheStoredTensors) {
  std::map<std::string, std::string> stored;
  for (const StoredTensor& tensor :
       open_safetensors(test::fixture_path("models/" + GetParam()) / "model.safetensors")) {
    stored[tensor.name] = tensor.shape.to_string();
  }
  std::map<std::string, std::string> read;
  const Graph graph = build_graph(config_of(GetParam()), DType::kF32);
  for (const Node& node : graph.nodes()) {
    if (node.kind != OpKind::kWeight) continue;
    for (const WeightPart& part : std::get<WeightAttrs>(node.attrs).source) {
      read[part.tensor] = part.stored.to_string();
    }
  }
  EXPECT_EQ(read, stored);
}

// A test name cannot have a dash.
std::string test_name(const ::testing::TestParamInfo<std::string>& fixture) {
  std::string name = fixture.param;
  std::ranges::replace(name, '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Fixtures, FixtureTest, ::testing::ValuesIn(fixture_names()), test_name);

TEST(FamiliesTest, EveryFamilyHasAFixture) {
  std::set<std::string> covered;
  for (const std::string& fixture : fixture_names()) covered.insert(config_of(fixture).model_type);
  for (const std::string_view type : supported_model_types()) {
    EXPECT_TRUE(covered.contains(std::string(type))) << type;
  }
}

// Published gpt-oss checkpoints hold their experts in MXFP4, the right way round.
TEST(FamiliesTest, GptOssReadsQuantisedExperts) {
  const fs::path path = test::fixture_path("models/gpt_oss") / "config.json";
  std::string text = read_text_file(path, kMaxConfigBytes);
  text.insert(1, R"("quantization_config": {"quant_method": "mxfp4"},)");
  const Graph graph = build_graph(parse_config_json(text, "config.json"), DType::kBF16);
  std::map<std::string, std::string> read;
  for (const Node& node : graph.nodes()) {
    if (node.kind != OpKind::kWeight) continue;
    for (const WeightPart& part : std::get<WeightAttrs>(node.attrs).source) {
      read[part.tensor] = part.stored.to_string();
    }
  }
  EXPECT_EQ(read.at("model.layers.0.mlp.experts.gate_up_proj_blocks"), "[4, 96, 64]");
  EXPECT_EQ(read.at("model.layers.0.mlp.experts.down_proj_blocks"), "[4, 64, 48]");
  EXPECT_FALSE(read.contains("model.layers.0.mlp.experts.gate_up_proj"));
}

TEST(FamiliesTest, NamesMayLackTheOutermostModule) {
  const Graph graph = build_graph(config_of("gpt2"), DType::kF32);
  std::vector<StoredTensor> tensors =
      open_safetensors(test::fixture_path("models/gpt2") / "model.safetensors");
  const auto whole = load_graph_weights(graph, tensors, {});
  for (StoredTensor& tensor : tensors) {
    ASSERT_TRUE(tensor.name.starts_with("transformer."));
    tensor.name = tensor.name.substr(std::string_view("transformer.").size());
  }
  const auto bare = load_graph_weights(graph, tensors, {});
  EXPECT_EQ(bare->fingerprint(), whole->fingerprint());
}

TEST(FamiliesTest, FindsByModelType) {
  ASSERT_NE(find_family("gemma2"), nullptr);
  EXPECT_EQ(find_family("gemma2")->model_type, "gemma2");
  EXPECT_EQ(find_family("gemma4"), nullptr);
  EXPECT_EQ(find_family(""), nullptr);
}

}  // namespace
}  // namespace lamina
