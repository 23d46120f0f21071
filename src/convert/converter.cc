#include "convert/converter.h"

#include <utility>

#include "convert/slicer.h"

namespace lamina {

ConvertedModel convert_model(const Graph& graph, const RewriteOptions& options) {
  RewrittenGraph rewritten = rewrite_graph(graph, options);
  return {slice_model(std::move(rewritten.graph)), std::move(rewritten.report)};
}

}  // namespace lamina
