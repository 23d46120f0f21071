// Rotary embedding as config.json describes it, in the old style (`rope_theta` and `rope_scaling`)
// and the new one (`rope_parameters`). Internal to huggingface/.
#pragma once

#include "model/family.h"
#include "model/json_fields.h"
#include "model/model_config.h"

namespace lamina {

// Fills in `rope`, and `sliding_rope` where layers with a window have parameters of their own.
// Throws Error kInvalidArgument; a rope type that is not supported is refused by name.
void read_rope(const JsonFields& config, const ConfigDefaults& defaults, ModelConfig& model);

}  // namespace lamina
