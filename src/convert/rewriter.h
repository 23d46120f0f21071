// The rewriter: runs the rewrites of convert/rewrites/ over a graph in order and checks the result
// of each. Used by convert_model (convert/converter.h). Pure.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "convert/rewrites/rewrite.h"

namespace lamina {

struct RewriteOptions {
  std::vector<std::string> disabled;  // names of rewrites that are left out
  ProjectionRates rates;
  ProjectionWorkload workload;
};

// What was done to a graph before it was sliced.
struct RewriteReport {
  struct Entry {
    std::string name;
    int32_t num_applied = 0;
    bool disabled = false;
  };
  std::vector<Entry> entries;  // each rewrite once, in the order in which they run first
  std::vector<ProjectionDecision> projections;
};

struct RewrittenGraph {
  Graph graph;
  RewriteReport report;
};

// Every rewrite once, in the order in which they run first.
std::vector<std::string_view> rewrite_names();

// Throws Error kInvalidArgument for the name of no rewrite in `options.disabled`, and where the
// graph cannot be sliced (slicer.h); kInternal if a rewrite breaks the graph, changes the output's
// type or touches an attention operator more than in its scale.
RewrittenGraph rewrite_graph(const Graph& graph, const RewriteOptions& options = {});

// What rewrite_graph checks after each rewrite. Throws Error kInternal naming the rewrite.
void check_rewritten(std::string_view rewrite, const Graph& before, const Graph& after);

}  // namespace lamina
