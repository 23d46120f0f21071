// The converter: a traced graph in, slices out. Rewrites the graph, slices it and keeps the account
// of both. What every program that runs or prints a model calls. Pure.
#pragma once

#include "convert/rewriter.h"
#include "convert/sliced_model.h"

namespace lamina {

struct ConvertedModel {
  SlicedModel sliced;
  RewriteReport rewrites;
};

// Throws as rewrite_graph (rewriter.h) and slice_model (slicer.h).
ConvertedModel convert_model(const Graph& graph, const RewriteOptions& options = {});

}  // namespace lamina
