// What a graph needs against what a file has: every weight the model's graph names exists in the
// store with the shape that the configuration implies. app/ calls it between loading and serving.
#pragma once

#include "graph/graph.h"
#include "model/weight_store.h"

namespace lamina {

// Throws Error kInvalidArgument, naming the weight, its shape and the one expected.
void check_weights(const Graph& graph, const WeightStore& weights);

}  // namespace lamina
