// Loading: the weights that a graph names are put together from the tensors that a model's files
// hold. What already lies in a file as the graph wants it is used in place; the rest is decoded
// piece by piece (part_reader.h, packed_reader.h) into memory of our own, so that resident
// memory stays near the size of the result.
#pragma once

#include <memory>
#include <span>

#include "graph/graph.h"
#include "model/model_files.h"
#include "model/weights/stored_tensor.h"

namespace lamina {

// Every tensor lies wholly in its file. "lm_head.weight" and "model.embed_tokens.weight" stand for
// each other where the graph names one and the file has only the other. Throws Error:
// kInvalidArgument for a name that stands twice and, before anything is read, for a tensor that the
// graph names and the file lacks, has in another shape, or in an encoding that we do not read;
// kResourceExhausted naming the weight that found no memory.
std::unique_ptr<WeightStore> load_graph_weights(const Graph& graph,
                                                std::span<const StoredTensor> tensors,
                                                const LoadOptions& options);

}  // namespace lamina
