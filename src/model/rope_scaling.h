// Rotary frequencies: the angular steps of a model's rotary embedding with its context extension
// (default, linear, dynamic, yarn, llama3) already applied, as the graph's rotary table wants them.
// Pure functions of the configuration; computed in double, rounded to f32 once.
#pragma once

#include <cstdint>

#include "graph/graph.h"
#include "model/model_config.h"

namespace lamina {

// inv_freq has rotary_dim / 2 entries, rotary_dim = int(head_dim * partial_rotary_factor); entry i
// turns the pair (i, i + rotary_dim / 2). Throws Error kInvalidArgument naming the field that has
// no meaning.
// Sources: RoFormer (arXiv 2104.09864), position interpolation (arXiv 2306.15595), YaRN
// (arXiv 2309.00071), Llama 3.1's reference code. Dynamic NTK scaling changes the base only past
// the original length, so below it these are the plain frequencies.
RopeTableAttrs rope_frequencies(const RopeConfig& rope,
                                int32_t head_dim,
                                int32_t max_position_embeddings);

// Number of positions that the frequencies are exact for, so the most that may be served: what the
// model was made for, which yarn states as factor times the original length. Dynamic scaling ends
// at the original length: beyond it every cached key would have to be rotated anew at each step.
int32_t max_exact_positions(const ModelConfig& config);

}  // namespace lamina
