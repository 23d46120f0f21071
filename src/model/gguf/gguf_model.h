// A model in one GGUF file: configuration, weights, vocabulary and chat template.
#pragma once

#include <filesystem>
#include <memory>

#include "model/model_files.h"

namespace lamina {

// Throws Error: kNotFound; kInvalidArgument naming the file and what is wrong.
std::unique_ptr<ModelFiles> open_gguf_model(const std::filesystem::path& path);

}  // namespace lamina
