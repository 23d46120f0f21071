// generation_config.json (or, where there is none, config.json) to GenerationDefaults. Pure
// function over hostile text.
#pragma once

#include <string>
#include <string_view>

#include "model/model_config.h"

namespace lamina {

// eos_token_id may be a number or a list. Ids outside the vocabulary can never be drawn and are
// left out. Throws Error kInvalidArgument naming `source`, the field and its value.
GenerationDefaults parse_generation_json(std::string_view text,
                                         const std::string& source,
                                         int32_t vocab_size);

}  // namespace lamina
