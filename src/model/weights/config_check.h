// Consistency of a ModelConfig, wherever it was read from. Used by the readers of Hugging Face
// folders and GGUF files.
#pragma once

#include <string_view>

#include "model/model_config.h"

namespace lamina {

// The largest values that a ModelConfig may hold: far above real models, and small enough that
// products of two or three of them fit in 64 bits.
inline constexpr int64_t kMaxWidth = 1 << 22;  // hidden, intermediate, vocabulary
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHeads = 4096;
inline constexpr int64_t kMaxHeadDim = 4096;

// Throws Error kInvalidArgument, naming `source` and the values that do not fit together.
void check_config(const ModelConfig& config, std::string_view source);

}  // namespace lamina
