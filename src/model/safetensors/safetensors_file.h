// Opening safetensors files: mapping, header, tensors. Used by huggingface/.
#pragma once

#include <filesystem>
#include <vector>

#include "model/weights/stored_tensor.h"

namespace lamina {

// All tensors of the file under their own names, those with a dtype other than F32, F16 and BF16 as
// kOpaque. Throws Error as parse_safetensors() does, and kNotFound without the file.
std::vector<StoredTensor> open_safetensors(const std::filesystem::path& path);

}  // namespace lamina
