// A Hugging Face model folder: config.json, safetensors weights in one file or several,
// generation_config.json, tokenizer and chat template.
#pragma once

#include <filesystem>
#include <memory>

#include "model/model_files.h"

namespace lamina {

// `model_dir` holds a config.json. Throws Error kInvalidArgument naming the file and what is wrong.
std::unique_ptr<ModelFiles> open_hf_model(const std::filesystem::path& model_dir);

}  // namespace lamina
