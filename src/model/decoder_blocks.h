// Pieces that many families share, written on symbolic values: what a builder is composed of. A
// piece takes what differs between families as an argument; a family that fits none of them writes
// its own with model/tracer.h.
#pragma once

#include "model/model_config.h"
#include "model/tracer.h"

namespace lamina {

// Throws Error kInvalidArgument where sizes of `config` are not positive or do not fit together.
void check_dimensions(const ModelConfig& config);

struct SelfAttentionOptions {
  int32_t layer_idx = 0;
  bool qk_norm = false;  // RMS norm over each head of q and k, before the rotation
};

// x [T, E] -> [T, E]: q_proj, k_proj, v_proj, rotary embedding, grouped-query attention with the
// layer's window, o_proj. `angles` is ModelTracer::rope_table().
Sym self_attention(const Scope& self_attn,
                   const ModelConfig& config,
                   Sym x,
                   Sym angles,
                   const SelfAttentionOptions& options);

// x [T, E] -> [T, E]: down_proj(silu(gate_proj(x)) * up_proj(x)).
Sym gated_mlp(const Scope& mlp, const ModelConfig& config, Sym x);

// x [S, E] -> f32 logits [S, vocab_size], by lm_head or the tied embedding table.
Sym lm_head(ModelTracer& tracer, const ModelConfig& config, Sym x);

}  // namespace lamina
