// Tensor parallelism as a rewrite of the graph: each of `num_ranks` ranks runs the same operators
// on its share of heads, columns and weights, and meets the others in kAllReduce and kAllGather
// (column- and row-parallel products, arXiv 1909.08053). Pure function, no family-specific code.
#pragma once

#include "graph/graph.h"

namespace lamina {

// The graph of one rank. Its inputs are those of `graph`, and so is its output, whole on every
// rank. Every rank's graph has the same operators in the same order, but for the bias of a product
// whose sum is spread over ranks, which rank 0 alone adds.
//   Attention is split by query heads. KV heads are split with them where num_ranks divides their
// number; where it is a multiple of their number, several ranks have the same KV head, each with a
// cache of its own.
//   What does not divide evenly, and what feeds an operator that needs whole rows, is computed on
// every rank.
// Throws Error kInvalidArgument if query or KV heads cannot be shared out, naming the numbers.
Graph shard_graph(const Graph& graph, int32_t rank, int32_t num_ranks);

}  // namespace lamina
