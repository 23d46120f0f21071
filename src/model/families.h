// The builders of all families, one function each, listed in builder.cc under the model types that
// they serve. To add a family: write its .cc, declare it here, list it there.
#pragma once

#include "graph/graph.h"
#include "model/model_config.h"

namespace lamina {

Graph build_llama(const ModelConfig& config, DType dtype);  // also mistral and qwen2
Graph build_qwen3(const ModelConfig& config, DType dtype);

}  // namespace lamina
