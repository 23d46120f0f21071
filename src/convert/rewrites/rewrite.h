// Rewrite: one improvement of a graph that keeps what it computes, up to rounding. Each is a small
// class of its own in this folder; convert/rewriter.h runs them in order and checks every result.
// Rewrites know operators, never families. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "convert/projection_cost.h"
#include "graph/graph.h"

namespace lamina {

// Whether q was fused with the k and v of the same input, and why.
struct ProjectionDecision {
  ProjectionShape shape;
  ProjectionEstimate estimate;
  int32_t num_attentions = 0;  // that have this shape
};

struct Rewritten {
  Graph graph;
  int32_t num_applied = 0;  // places where the graph was changed
  std::vector<ProjectionDecision> projections = {};
};

class Rewrite {
 public:
  virtual ~Rewrite() = default;
  // What --disable-rewrite calls it.
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Same inputs, same attention operators in the same order, same output type.
  [[nodiscard]] virtual Rewritten rewrite(const Graph& graph) const = 0;
};

}  // namespace lamina
