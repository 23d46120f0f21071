// Opening safetensors files: mapping, header, and the tensors that a model can use. Used by
// huggingface/.
#pragma once

#include <filesystem>
#include <vector>

#include "model/weights/stored_tensor.h"

namespace lamina {

// All tensors of the file under their own names. Buffers that old checkpoints carry and no model
// needs ("*.rotary_emb.inv_freq") are left out. Throws Error as parse_safetensors() does, kNotFound
// without the file, and kInvalidArgument, naming tensor and dtype, for a dtype that is not F32, F16
// or BF16.
std::vector<StoredTensor> open_safetensors(const std::filesystem::path& path);

}  // namespace lamina
