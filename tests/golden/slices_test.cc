// How the converter slices the families: compared with tests/fixtures/golden/slices/<family>.txt.
// LAMINA_UPDATE_GOLDEN=1 rewrites those files; the difference is reviewed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "convert/slicer.h"
#include "model/builder.h"
#include "support/paths.h"

namespace lamina {
namespace {

using ::testing::SizeIs;

ModelConfig tiny_config(const std::string& model_type, int32_t num_layers) {
  ModelConfig config;
  config.model_type = model_type;
  config.vocab_size = 512;
  config.hidden_size = 64;
  config.intermediate_size = 160;
  config.num_layers = num_layers;
  config.num_heads = 8;
  config.num_kv_heads = 2;
  config.head_dim = model_type == "qwen3" ? 32 : 8;
  config.max_position_embeddings = 512;
  config.qkv_bias = model_type == "qwen2";
  config.windows.resize(static_cast<size_t>(num_layers));
  if (model_type == "mistral") std::ranges::fill(config.windows, 24);
  return config;
}

SlicedModel slice_family(const std::string& model_type, int32_t num_layers = 2) {
  return slice_model(build_graph(tiny_config(model_type, num_layers), DType::kBF16));
}

std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class SlicesGoldenTest : public testing::TestWithParam<std::string_view> {};

TEST_P(SlicesGoldenTest, EqualsTheFile) {
  const std::string family(GetParam());
  const std::filesystem::path path = test::fixture_path("golden/slices/" + family + ".txt");
  const std::string text = slice_family(family).dump();
  const char* update = std::getenv("LAMINA_UPDATE_GOLDEN");
  if (update != nullptr && std::string_view(update) == "1") std::ofstream(path) << text;
  EXPECT_EQ(text, read_file(path)) << "LAMINA_UPDATE_GOLDEN=1 rewrites " << path;
}

TEST_P(SlicesGoldenTest, CarriesOneHiddenVectorPerToken) {
  const SlicedModel model = slice_family(std::string(GetParam()), 5);
  ASSERT_EQ(model.slices.size(), 6U);
  for (const Slice& slice : model.slices) {
    if (slice.idx == 5) break;
    ASSERT_THAT(slice.carried_out, SizeIs(1));
    EXPECT_EQ(model.graph.type(slice.carried_out[0]).row_bytes(), 64 * 2);
    EXPECT_EQ(model.slices[static_cast<size_t>(slice.idx) + 1].carried_in, slice.carried_out);
  }
}

TEST_P(SlicesGoldenTest, RecomputesTheRotaryTable) {
  const SlicedModel model = slice_family(std::string(GetParam()), 3);
  for (const Slice& slice : model.slices) {
    const auto tables = std::ranges::count_if(slice.program, [&](const Instruction& step) {
      return step.kind == InstructionKind::kCompute &&
             model.graph.node(step.node).kind == OpKind::kRopeTable;
    });
    EXPECT_EQ(tables, slice.idx < 3 ? 1 : 0) << "slice " << slice.idx;
  }
}

// Only the norm, the rotary table and q's own way stand before the send of q.
TEST_P(SlicesGoldenTest, SendsQBeforeKAndVAreProjected) {
  const SlicedModel model = slice_family(std::string(GetParam()), 3);
  for (const AttentionOp& op : model.attentions) {
    const std::vector<Instruction>& program =
        model.slices[static_cast<size_t>(op.attrs.layer_idx)].program;
    const auto sent_q = std::ranges::find(program, InstructionKind::kSendQ, &Instruction::kind);
    for (auto step = program.begin(); step != sent_q; ++step) {
      if (step->kind != InstructionKind::kCompute) continue;
      EXPECT_FALSE(step->node == op.k || step->node == op.v) << model.dump();
    }
    EXPECT_EQ(program.back().kind, InstructionKind::kSendKv);
  }
}

std::string family_name(const testing::TestParamInfo<std::string_view>& info) {
  return std::string(info.param);
}
INSTANTIATE_TEST_SUITE_P(Families,
                         SlicesGoldenTest,
                         testing::ValuesIn(supported_model_types().begin(),
                                           supported_model_types().end()),
                         family_name);

// A model of real size: 80 layers.
TEST(SlicesTest, SlicesADeepModel) {
  const SlicedModel model = slice_family("llama", 80);
  ASSERT_EQ(model.slices.size(), 81U);
  EXPECT_THAT(model.slices[79].carried_out, SizeIs(1));
}

}  // namespace
}  // namespace lamina
