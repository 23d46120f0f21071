// SlicedModel: what the converter makes of a Graph: n + 1 slices around n attention operators, each
// slice a straight-line program, with the values it keeps for later slices. Immutable.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace lamina {

// An attention operator taken out of the slices: what goes to the attention workers and what comes
// back.
struct AttentionOp {
  NodeId node = 0;
  ValueId q = 0;
  ValueId k = 0;
  ValueId v = 0;
  ValueId out = 0;
  std::optional<ValueId> sinks =
      std::nullopt;  // a weight [Hq] that the attention workers are given
  AttentionAttrs attrs;
};

enum class InstructionKind : uint8_t {
  kCompute,  // run `node`
  kSendQ,    // q of attention `attention_idx` is ready: it leaves at once
  kSendKv,   // k and v are ready
  kReceive,  // the output of attention `attention_idx` is needed from here on
};

struct Instruction {
  InstructionKind kind = InstructionKind::kCompute;
  NodeId node = -1;            // kCompute
  int32_t attention_idx = -1;  // the others

  friend bool operator==(const Instruction&, const Instruction&) = default;
};

struct Slice {
  int32_t idx = 0;
  std::vector<Instruction> program;
  std::vector<ValueId> carried_in;  // CarriedValues this slice reads
  std::vector<ValueId>
      carried_out;  // CarriedValues live after it: its own and older ones still needed
};

struct SlicedModel {
  Graph graph;
  std::vector<AttentionOp> attentions;  // n, in execution order
  std::vector<Slice>
      slices;  // n + 1; slice k sends to attention k, may work on, and slice k + 1 receives

  // Throws Error kInternal unless: every node with effect on the output stands in at least one
  // slice; a node stands twice only if it is recomputed cheaply; each instruction's inputs are
  // weights, step inputs, carried_in or computed earlier in its slice; send q precedes send kv;
  // carried lists match across slices.
  void verify() const;
  // Slices as text: carried values with bytes per token, then the program. Same input, same text.
  [[nodiscard]] std::string dump() const;
  // The part of dump() that is slice `slice_idx`.
  [[nodiscard]] std::string dump_slice(int32_t slice_idx) const;
};

}  // namespace lamina
