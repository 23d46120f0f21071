// Rotary scaling as GGUF metadata and the tensor "rope_freqs.weight" describe it. Internal to
// gguf/.
#pragma once

#include <span>
#include <string_view>

#include "model/gguf/gguf_metadata.h"
#include "model/model_config.h"

namespace lamina {

// `frequency_divisors`: the elements of "rope_freqs.weight", empty if there is none. Writers put
// llama3 scaling there, one divisor for each frequency; the parameters behind it are found again,
// and divisors that no such parameters give are refused. Throws Error kInvalidArgument.
RopeConfig read_gguf_rope(const GgufMetadata& metadata,
                          std::string_view architecture,
                          int32_t head_dim,
                          std::span<const float> frequency_divisors);

}  // namespace lamina
