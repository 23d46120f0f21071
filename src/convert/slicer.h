// The slicer: cuts a Graph at its attention operators by minimum weighted cuts (PAPER 6 and 12.4
// to 12.6) and orders each slice so that q leaves as early as it can. Pure function, no
// family-specific code.
#pragma once

#include "convert/sliced_model.h"

namespace lamina {

// For each attention operator in turn: a minimum cut between the producers of q, k, v ("before")
// and the consumers of its output ("after"), no edge from after to before, each value counted once
// however many consumers it has, weights and step inputs free, cheap producers (functions of step
// inputs and weights alone, such as rotary tables) free because they are recomputed in each slice
// that needs them. Among cuts of equal weight the latest is taken: what does not need the attention
// output runs before it is received. Weights are bytes per token, so one cut serves every batch.
// Throws Error kInvalidArgument if the graph has no attention or two attentions that are not
// ordered.
SlicedModel slice_model(Graph graph);

// The slice that each node would stand in, -1 for leaves, cheap values and nodes without effect; an
// attention operator stands where its output is received. Throws as slice_model. Two nodes of one
// slice are on the same side of every minimum cut: what rewrites may join without a cut growing.
std::vector<int32_t> slice_numbers(const Graph& graph);

}  // namespace lamina
