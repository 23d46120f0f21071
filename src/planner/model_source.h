// Where a ModelWork comes from: a Hugging Face folder, GGUF file or config.json, or a built-in name
// of one of the paper's models, whose sizes are those that the paper's tables were made with.
#pragma once

#include <string>
#include <vector>

#include "model/model_config.h"
#include "plan/model_work.h"

namespace lamina::planner {

// "llama-33b", "llama-65b", "llama3-70b": weights as PAPER 2 (Table 3) gives them in GB, N being
// half their bytes.
std::vector<std::string> built_in_models();

// Throws Error: what read_model_config() and build_graph() throw; kNotFound naming the built-in
// models for a name that is neither a path nor one of them.
ModelWork read_model_work(const std::string& name_or_path);
// Of a configuration, called `name`. Throws what build_graph() throws.
ModelWork model_work(const ModelConfig& config, const std::string& name);

}  // namespace lamina::planner
