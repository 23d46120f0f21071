// Model builders: a family's whole forward pass written once on symbolic values. A builder knows
// nothing of slicing, devices or networks; adding a family touches this room alone.
#pragma once

#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "model/model_config.h"

namespace lamina {

// Traces the forward pass of `config` with activations in `dtype` (logits are f32). Inputs of the
// graph: "token_ids" [T] i32, "positions" [T] i32, "logits_rows" [S] i32; output: logits [S,
// vocab_size] f32. Throws Error kUnimplemented naming the model_type if no builder exists.
Graph build_graph(const ModelConfig& config, DType dtype);

// Names of supported model types, sorted.
std::vector<std::string_view> supported_model_types();

}  // namespace lamina
