// Rotary embedding as config.json describes it, in the old style (`rope_theta` and `rope_scaling`)
// and the new one (`rope_parameters`). Internal to huggingface/.
#pragma once

#include "model/huggingface/json_fields.h"
#include "model/model_config.h"

namespace lamina {

// Throws Error kInvalidArgument; a rope type that is not supported is refused by name.
RopeConfig read_rope(const JsonFields& config, int32_t max_position_embeddings);

}  // namespace lamina
