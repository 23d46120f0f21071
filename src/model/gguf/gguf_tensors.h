// Tensors of a GGUF file under their Hugging Face names, with the row order that the llama
// architecture changes marked for undoing. Internal to gguf/.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace lamina {

// "blk.3.attn_q.weight" to "model.layers.3.self_attn.q_proj.weight"; nothing for a name that is
// not part of our families.
std::optional<std::string> hugging_face_name(std::string_view gguf_name);

// `mapping` is the file that `file` was parsed from. "rope_freqs.weight", which became part of
// `config`, is left out. Throws Error kInvalidArgument naming a tensor that we would ignore, or
// whose rows do not make the heads that `config` says or cannot be put in order.
std::vector<StoredTensor> list_gguf_tensors(const GgufFile& file,
                                            const ModelConfig& config,
                                            const std::shared_ptr<const MappedFile>& mapping);

}  // namespace lamina
