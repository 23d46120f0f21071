#include "exec/memory_plan.h"

#include <gtest/gtest.h>

#include <map>

#include "convert/slicer.h"
#include "model/builder.h"

namespace lamina {
namespace {

ModelConfig tiny_config() {
  ModelConfig config;
  config.model_type = "llama";
  config.vocab_size = 100;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.max_position_embeddings = 64;
  config.windows.resize(3);
  return config;
}

std::vector<ValueId> touched(const SlicedModel& model, const Instruction& instruction) {
  if (instruction.kind == InstructionKind::kCompute) {
    std::vector<ValueId> values = model.graph.node(instruction.node).inputs;
    values.push_back(instruction.node);
    return values;
  }
  const AttentionOp& attention = model.attentions[static_cast<size_t>(instruction.attention_idx)];
  switch (instruction.kind) {
    case InstructionKind::kSendQ:
      return {attention.q};
    case InstructionKind::kSendKv:
      return {attention.k, attention.v};
    default:
      return {attention.out};
  }
}

class Replay {
 public:
  Replay(const SlicedModel& model, const StepLimits& limits)
      : model_(model), limits_(limits), plan_(plan_memory(model, limits)) {}

  // Runs every slice on a memory of labels: a value that is read must still stand where it was
  // written.
  void run() {
    std::map<std::pair<ValueRegion, size_t>, ValueId> memory;  // byte -> value, in steps of 64
    for (const Slice& slice : model_.slices) {
      for (const Instruction& instruction : slice.program) {
        const std::vector<ValueId> values = touched(model_, instruction);
        const bool writes = instruction.kind == InstructionKind::kCompute ||
                            instruction.kind == InstructionKind::kReceive;
        const size_t num_reads = instruction.kind == InstructionKind::kReceive ? 0
                                 : writes                                      ? values.size() - 1
                                                                               : values.size();
        for (size_t i = 0; i < num_reads; ++i) expect_intact(memory, slice.idx, values[i]);
        if (writes) write(memory, slice.idx, values.back());
      }
    }
    expect_intact(memory, model_.slices.back().idx, model_.graph.output());
  }

  [[nodiscard]] const MemoryPlan& plan() const { return plan_; }

 private:
  [[nodiscard]] ValueId root(ValueId value) const {
    while (model_.graph.node(value).kind == OpKind::kReshape)
      value = model_.graph.node(value).inputs[0];
    return value;
  }
  [[nodiscard]] size_t bytes(ValueId value) const {
    const ValueType& type = model_.graph.type(value);
    return static_cast<size_t>(type.row_bytes()) *
           static_cast<size_t>(type.rows == RowAxis::kTokens ? limits_.max_tokens
                                                             : limits_.max_logits_rows);
  }
  [[nodiscard]] ValuePlace place(int32_t slice, ValueId value) const {
    return plan_.places[static_cast<size_t>(slice)][static_cast<size_t>(value)];
  }
  void write(std::map<std::pair<ValueRegion, size_t>, ValueId>& memory,
             int32_t slice,
             ValueId value) const {
    if (model_.graph.node(value).kind == OpKind::kReshape) return;
    const ValuePlace at = place(slice, value);
    ASSERT_NE(at.region, ValueRegion::kNone);
    ASSERT_LE(at.offset + bytes(value),
              at.region == ValueRegion::kScratch ? plan_.scratch_bytes : plan_.carried_bytes);
    for (size_t byte = 0; byte < bytes(value); byte += 64)
      memory[{at.region, at.offset + byte}] = value;
  }
  void expect_intact(const std::map<std::pair<ValueRegion, size_t>, ValueId>& memory,
                     int32_t slice,
                     ValueId value) const {
    const OpKind kind = model_.graph.node(root(value)).kind;
    if (kind == OpKind::kWeight || kind == OpKind::kInput) return;
    const ValuePlace at = place(slice, value);
    ASSERT_NE(at.region, ValueRegion::kNone);
    for (size_t byte = 0; byte < bytes(value); byte += 64) {
      const auto found = memory.find({at.region, at.offset + byte});
      ASSERT_TRUE(found != memory.end());
      ASSERT_EQ(found->second, root(value))
          << "slice " << slice << " reads " << model_.graph.node(value).name;
    }
  }

  const SlicedModel& model_;
  StepLimits limits_;
  MemoryPlan plan_;
};

TEST(MemoryPlan, NoValueIsOverwrittenWhileItIsNeeded) {
  const SlicedModel model = slice_model(build_graph(tiny_config(), DType::kF32));
  Replay(model, {.max_tokens = 7, .max_logits_rows = 3}).run();
  Replay(model, {.max_tokens = 64, .max_logits_rows = 64}).run();
}

TEST(MemoryPlan, ReusesMemoryAcrossLayers) {
  ModelConfig shallow = tiny_config();
  ModelConfig deep = tiny_config();
  deep.num_layers = 12;
  deep.windows.resize(12);
  const StepLimits limits{.max_tokens = 64, .max_logits_rows = 8};
  const MemoryPlan few = plan_memory(slice_model(build_graph(shallow, DType::kF32)), limits);
  const MemoryPlan many = plan_memory(slice_model(build_graph(deep, DType::kF32)), limits);
  EXPECT_EQ(few.scratch_bytes, many.scratch_bytes);
  EXPECT_EQ(few.carried_bytes, many.carried_bytes);
}

}  // namespace
}  // namespace lamina
