// config.json of a Hugging Face folder to ModelConfig: the rules that families share, with each
// family's defaults for absent fields (model/family.h). Pure function over hostile text.
#pragma once

#include <string>
#include <string_view>

#include "model/model_config.h"

namespace lamina {

inline constexpr size_t kMaxConfigBytes = size_t{1} << 20;

// Throws Error kInvalidArgument naming `source`, the field and its value. What we could not honour
// exactly is refused by name: another model_type, activation, rope type, layer type, quantisation.
ModelConfig parse_config_json(std::string_view text, const std::string& source);

}  // namespace lamina
