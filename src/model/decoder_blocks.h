// Pieces that many families share, written on symbolic values: what a builder is composed of. A
// piece takes what differs between families as an argument; a family that fits none of them writes
// its own with model/tracer.h.
#pragma once

#include <string_view>
#include <vector>

#include "model/model_config.h"
#include "model/tracer.h"

namespace lamina {

// Throws Error kInvalidArgument where sizes of `config` are not positive or do not fit together.
void check_dimensions(const ModelConfig& config);

// The rotary table of the model, or that of its sliding layers where these have their own.
Sym rotary_table(ModelTracer& tracer, const ModelConfig& config);
Sym sliding_rotary_table(ModelTracer& tracer, const ModelConfig& config);

// Heads of one layer: q [T, Hq, D], k [T, Hkv, D], v [T, Hkv, D].
struct Qkv {
  Sym q;
  Sym k;
  Sym v;
};
// q_proj, k_proj and v_proj of x [T, E], with the configuration's biases.
Qkv project_qkv(const Scope& self_attn, const ModelConfig& config, Sym x);
// The same from one fused weight. kBlocks: rows of q, of k, of v. kByKvHead: for each KV head the
// rows of its query heads, its key, its value.
enum class FusedLayout { kBlocks, kByKvHead };
Qkv project_fused_qkv(const Scope& fused,
                      const ModelConfig& config,
                      Sym x,
                      FusedLayout layout,
                      const LinearOptions& options = {});
// q and k turned by the table's angles.
Qkv rotated(const Qkv& heads, Sym table, bool interleaved = false);
// Attention of layer `layer_idx` with its window: [T, Hq * Dv].
Sym attend(const Scope& self_attn,
           const ModelConfig& config,
           int32_t layer_idx,
           const Qkv& heads,
           AttentionOptions options = {});
// attend() and the output projection: the attention block of the llama lineage.
Sym self_attention(const Scope& self_attn,
                   const ModelConfig& config,
                   int32_t layer_idx,
                   const Qkv& heads,
                   AttentionOptions options = {});

// x [T, E] -> [T, E]: down_proj(activation(gate_proj(x)) * up_proj(x)), `width` wide inside (0:
// intermediate_size).
Sym gated_mlp(const Scope& mlp, const ModelConfig& config, Sym x, int64_t width = 0);
// x [T, E] -> [T, E]: down(activation(up(x))).
Sym plain_mlp(
    const Scope& up, const Scope& down, const ModelConfig& config, Sym x, LinearOptions options);

// Where a mixture of experts lies: one module per expert under `experts`, with these projections.
struct ExpertNames {
  std::string_view gate = "gate_proj";
  std::string_view up = "up_proj";
  std::string_view down = "down_proj";
};
// x [T, E] -> [T, E]: the router's logits are `gate`'s, in f32.
struct MoeOptions {
  int32_t num_experts = 0;
  int64_t width = 0;  // of one expert inside
  RouteAttrs route;
  ExpertNames names = {};
};
Sym routed_experts(const Scope& gate,
                   const Scope& experts,
                   const ModelConfig& config,
                   Sym x,
                   const MoeOptions& options,
                   std::optional<Sym> correction_bias = std::nullopt);
// Number of experts and how many of them a token goes to, as every family names them.
MoeOptions read_moe(const ModelConfig& config, std::string_view width_field);

// Only the rows whose logits are wanted: a prompt needs its last one.
inline Sym wanted_rows(ModelTracer& tracer, Sym x) {
  return x.gather_rows(tracer.logits_rows());
}
// x [S, E] -> f32 logits [S, vocab_size], by the head or the tied embedding table.
struct HeadOptions {
  std::string_view embedding = "model.embed_tokens";
  std::string_view head = "lm_head";
  bool bias = false;  // of a head that is not tied
};
Sym lm_head(ModelTracer& tracer, const ModelConfig& config, Sym x, const HeadOptions& options = {});

}  // namespace lamina
