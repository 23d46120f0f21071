// How the converter rewrites and slices every fixture's model: compared with
// tests/fixtures/golden/slices/<fixture>.txt. LAMINA_UPDATE_GOLDEN=1 rewrites those files; the
// difference is reviewed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "convert/converter.h"
#include "model/builder.h"
#include "model/model_files.h"
#include "support/paths.h"

namespace lamina {
namespace {

using ::testing::SizeIs;

ModelConfig fixture_config(const std::string& fixture) {
  return read_model_config(test::fixture_path("models/" + fixture));
}

SlicedModel slice_config(const ModelConfig& config) {
  return convert_model(build_graph(config, DType::kBF16)).sliced;
}

// `fixture` with another number of layers, all alike but for windows.
SlicedModel slice_layers(const std::string& fixture, int32_t num_layers) {
  ModelConfig config = fixture_config(fixture);
  config.num_layers = num_layers;
  config.windows.resize(static_cast<size_t>(num_layers), config.windows.front());
  return slice_config(config);
}

std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class SlicesGoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(SlicesGoldenTest, EqualsTheFile) {
  const std::filesystem::path path = test::fixture_path("golden/slices/" + GetParam() + ".txt");
  const std::string text = slice_config(fixture_config(GetParam())).dump();
  const char* update = std::getenv("LAMINA_UPDATE_GOLDEN");
  if (update != nullptr && std::string_view(update) == "1") std::ofstream(path) << text;
  EXPECT_EQ(text, read_file(path)) << "LAMINA_UPDATE_GOLDEN=1 rewrites " << path;
}

// One hidden vector per token, and the same whatever the batch: weights of the cut are bytes per
// token.
TEST_P(SlicesGoldenTest, CarriesOneHiddenVector) {
  const ModelConfig config = fixture_config(GetParam());
  const SlicedModel model = slice_config(config);
  for (const Slice& slice : model.slices) {
    if (slice.idx == config.num_layers) break;
    ASSERT_THAT(slice.carried_out, SizeIs(1)) << model.dump();
    EXPECT_EQ(model.graph.type(slice.carried_out[0]).row_bytes(), config.hidden_size * 2);
    EXPECT_EQ(model.slices[static_cast<size_t>(slice.idx) + 1].carried_in, slice.carried_out);
  }
}

// Slices recompute what is cheap rather than carry it.
TEST_P(SlicesGoldenTest, CarriesNoRotaryTable) {
  const SlicedModel model = slice_config(fixture_config(GetParam()));
  for (const Slice& slice : model.slices) {
    std::set<NodeId> computed;
    for (const Instruction& step : slice.program) {
      if (step.kind != InstructionKind::kCompute) continue;
      const Node& node = model.graph.node(step.node);
      if (node.kind == OpKind::kRopeTable) computed.insert(node.id);
      if (node.kind != OpKind::kRope) continue;
      EXPECT_TRUE(computed.contains(node.inputs[1])) << model.graph.dump_node(node.id);
    }
  }
}

// Nothing that q does not need stands before its send; k and v leave as soon as they are there.
TEST_P(SlicesGoldenTest, SendsQThenKAndV) {
  const SlicedModel model = slice_config(fixture_config(GetParam()));
  for (const Slice& slice : model.slices) {
    if (slice.idx == static_cast<int32_t>(model.attentions.size())) break;
    const auto sent_q =
        std::ranges::find(slice.program, InstructionKind::kSendQ, &Instruction::kind);
    const auto sent_kv =
        std::ranges::find(slice.program, InstructionKind::kSendKv, &Instruction::kind);
    ASSERT_TRUE(sent_q < sent_kv && sent_kv != slice.program.end());
    std::set<ValueId> needed = {model.attentions[static_cast<size_t>(slice.idx)].q};
    for (auto step = sent_q; step != slice.program.begin();) {
      --step;
      if (step->kind != InstructionKind::kCompute) continue;
      EXPECT_TRUE(needed.contains(step->node)) << model.graph.dump_node(step->node);
      const std::vector<ValueId>& inputs = model.graph.node(step->node).inputs;
      needed.insert(inputs.begin(), inputs.end());
    }
  }
}

std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::fixture_path("models"))) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

// A test name cannot have a dash.
std::string test_name(const testing::TestParamInfo<std::string>& fixture) {
  std::string name = fixture.param;
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, SlicesGoldenTest, testing::ValuesIn(fixture_names()), test_name);

// Families whose MLP stands beside attention finish it while attention runs: layer i's in slice i,
// where that of other families is in slice i + 1.
TEST(SlicesTest, MlpBesideAttentionRunsWhileAttentionDoes) {
  const auto slice_of_mlp = [](const std::string& fixture) {
    const SlicedModel model = slice_config(fixture_config(fixture));
    int32_t found = -1;
    for (const Slice& slice : model.slices) {
      for (const Instruction& step : slice.program) {
        if (step.kind != InstructionKind::kCompute) continue;
        const Node& node = model.graph.node(step.node);
        const bool is_mlp = node.kind == OpKind::kLinear &&
                            node.name.find("mlp") != std::string::npos &&
                            node.name.find(".1.") != std::string::npos;
        if (is_mlp) found = slice.idx;
      }
    }
    return found;
  };
  for (const char* fixture : {"gpt_neox",
                              "falcon",
                              "falcon-new",
                              "falcon2",
                              "phi",
                              "cohere",
                              "cohere2",
                              "gptj",
                              "stablelm-parallel"}) {
    EXPECT_EQ(slice_of_mlp(fixture), 1) << fixture;
  }
  for (const char* fixture :
       {"llama-gqa", "gpt_neox-sequential", "falcon-sequential", "stablelm"}) {
    EXPECT_EQ(slice_of_mlp(fixture), 2) << fixture;
  }
}

// A model of real size: 126 layers.
TEST(SlicesTest, SlicesADeepModel) {
  const SlicedModel model = slice_layers("llama-gqa", 126);
  ASSERT_EQ(model.slices.size(), 127U);
  EXPECT_THAT(model.slices[125].carried_out, SizeIs(1));
}

}  // namespace
}  // namespace lamina
