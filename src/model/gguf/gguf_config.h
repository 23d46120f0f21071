// GGUF metadata to ModelConfig and GenerationDefaults, for the architectures llama (which also
// carries mistral), qwen2 and qwen3. Pure functions over a parsed file.
#pragma once

#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace lamina {

// `bytes`: the file that `file` was parsed from; a few small tensors shape the configuration.
// Throws Error kInvalidArgument naming file, key and value; what could not be honoured exactly is
// refused by name.
ModelConfig read_gguf_config(const GgufFile& file, std::span<const std::byte> bytes);

GenerationDefaults read_gguf_generation_defaults(const GgufMetadata& metadata, int32_t vocab_size);

}  // namespace lamina
