#include "convert/sliced_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "base/error.h"
#include "convert/graph_sketch.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;

SlicedModel two_layers() {
  test::GraphSketch g;
  const ValueId table = g.rope_table();
  ValueId x = g.embed(16);
  for (int layer = 0; layer < 2; ++layer) {
    const ValueId q = g.rope(g.heads(g.linear(x, 16, "q")), table);
    const ValueId kv = g.heads(g.linear(x, 8, "kv"));
    x = g.add(x, g.flat(g.attention_of_heads(q, kv, kv)));
  }
  return slice_model(g.finish(g.linear(x, 100, "head")));
}

TEST(SlicedModelTest, DumpsEverySliceWithItsBytes) {
  test::GraphSketch g;
  const ValueId x = g.embed(8);
  const SlicedModel model = slice_model(g.finish(g.add(x, g.self_attention(x))));
  EXPECT_EQ(model.dump(), R"(slice 0
  carried in: 0 bytes a token
  %3 = embedding(%2, %0) [T, 8] f32  # embed
  %5 = linear(%3, %4) [T, 8] f32  # q
  %10 = reshape(%5) [T, 1, 8] f32
  send q %10 to attention 0: 32 bytes a token
  %7 = linear(%3, %6) [T, 8] f32  # k
  %9 = linear(%3, %8) [T, 8] f32  # v
  %11 = reshape(%7) [T, 1, 8] f32
  %12 = reshape(%9) [T, 1, 8] f32
  send k %11, v %12 to attention 0: 64 bytes a token
  carried out: 32 bytes a token
    %3 [T, 8] f32
slice 1
  carried in: 32 bytes a token
    %3 [T, 8] f32
  receive %13 = attention(%10, %11, %12) layer=0 scale=1 [T, 1, 8] f32  # attn
  %14 = reshape(%13) [T, 8] f32
  %15 = add(%3, %14) [T, 8] f32
  carried out: 0 bytes a token
output %15
)");
}

TEST(SlicedModelTest, VerifyAcceptsWhatTheSlicerMakes) {
  EXPECT_NO_THROW(two_layers().verify());
}

struct Damage {
  std::string expected;
  std::function<void(SlicedModel&)> inflict;
};

TEST(SlicedModelTest, VerifyFindsEveryBrokenRule) {
  using Model = SlicedModel;
  const auto program = [](Model& model, size_t k) -> std::vector<Instruction>& {
    return model.slices[k].program;
  };
  const auto swap_sends = [&](Model& model) {
    std::vector<Instruction*> sends;
    for (Instruction& step : program(model, 0)) {
      if (step.kind != InstructionKind::kCompute) sends.push_back(&step);
    }
    std::swap(*sends.at(0), *sends.at(1));
  };
  const std::vector<Damage> damages = {
      {"slices around", [](Model& m) { m.slices.pop_back(); }},
      {"attentions for", [](Model& m) { m.attentions.pop_back(); }},
      {"attention 1 is not", [](Model& m) { m.attentions[1].q = 0; }},
      {"attention 0 is not", [](Model& m) { m.attentions[0].attrs.scale = 7.0F; }},
      {"slice 1 has index 2", [](Model& m) { m.slices[1].idx = 2; }},
      {"sends k and v before q", swap_sends},
      {"slice 0 does not send k and v", [&](Model& m) { program(m, 0).pop_back(); }},
      {"slice 1 uses", [&](Model& m) { program(m, 1).erase(program(m, 1).begin()); }},
      {"slice 0 sends %",
       [&](Model& m) {
         const auto sent_q =
             std::ranges::find(program(m, 0), InstructionKind::kSendQ, &Instruction::kind);
         program(m, 0).erase(sent_q - 1);
       }},
      {"slice 2 makes", [&](Model& m) { program(m, 2).push_back(program(m, 2).back()); }},
      {"talks to attention 1",
       [&](Model& m) {
         std::ranges::find(program(m, 1), InstructionKind::kReceive, &Instruction::kind)
             ->attention_idx = 1;
       }},
      {"slice 1 talks to attention 0", [&](Model& m) { program(m, 1).back().attention_idx = 0; }},
      {"slice 0 sends q twice",
       [&](Model& m) {
         program(m, 0).push_back({.kind = InstructionKind::kSendQ, .attention_idx = 0});
       }},
      {"slice 0 sends k and v twice",
       [&](Model& m) { program(m, 0).push_back(program(m, 0).back()); }},
      {"computes node 999",
       [&](Model& m) {
         program(m, 0).push_back({.kind = InstructionKind::kCompute, .node = 999});
       }},
      {"slice 0 computes %0 = input()",
       [&](Model& m) { program(m, 0).push_back({.kind = InstructionKind::kCompute, .node = 0}); }},
      {"2 slices make",
       [&](Model& m) {
         const ValueId x = m.slices[0].carried_out.front();
         m.slices[1].carried_in.clear();
         program(m, 1).insert(program(m, 1).begin(),
                              {.kind = InstructionKind::kCompute, .node = x});
         m.slices[0].carried_out.clear();
       }},
      {"which slice 0 does not carry", [](Model& m) { m.slices[0].carried_out.clear(); }},
      {"slice 2 carries %4 without having it", [](Model& m) { m.slices[2].carried_out = {4}; }},
      {"which nothing reads", [](Model& m) { m.slices[2].carried_out = m.slices[1].carried_out; }},
      {"in and does not read it",
       [](Model& m) {
         m.slices[0].carried_out.push_back(m.attentions[0].q);
         m.slices[1].carried_in.push_back(m.attentions[0].q);
       }},
      {"not in order, once each",
       [](Model& m) { m.slices[0].carried_out.push_back(m.slices[0].carried_out.front()); }},
      {"carries %-1, unknown", [](Model& m) { m.slices[0].carried_out = {-1}; }},
      {"no slice makes", [&](Model& m) { program(m, 2).pop_back(); }},
  };
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.expected);
    SlicedModel model = two_layers();
    damage.inflict(model);
    try {
      model.verify();
      ADD_FAILURE() << "not found\n" << model.dump();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), StatusCode::kInternal);
      EXPECT_THAT(error.what(), HasSubstr(damage.expected));
    }
  }
}

}  // namespace
}  // namespace lamina
