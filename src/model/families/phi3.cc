// Phi-3 and Phi-4-mini: the llama block with fused projections of q, k, v and of gate, up.
// Source: arXiv 2404.14219.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

Sym fused_gated_mlp(const Scope& mlp, const ModelConfig& config, Sym x) {
  const int64_t width = config.intermediate_size;
  const Scope gate_up = mlp / "gate_up_proj";
  const Sym gate = gate_up.linear(x, width, {.part = FusedRows{2 * width, {0, width}}});
  const Sym up = gate_up.linear(x, width, {.part = FusedRows{2 * width, {width, width}}});
  return (mlp / "down_proj").linear(gate.activated(config.activation) * up, config.hidden_size);
}

Graph build_phi3(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model");
  const float eps = config.norm_eps;
  const Sym angles = rotary_table(tracer, config);

  Sym x =
      (model / "embed_tokens").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Scope self_attn = layer / "self_attn";
    const Sym normed = (layer / "input_layernorm").rms_norm(x, eps);
    const Qkv heads =
        project_fused_qkv(self_attn / "qkv_proj", config, normed, FusedLayout::kBlocks);
    x = x + self_attention(self_attn, config, i, rotated(heads, angles));
    x = x + fused_gated_mlp(
                layer / "mlp", config, (layer / "post_attention_layernorm").rms_norm(x, eps));
  }
  x = (model / "norm").rms_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x));
}

}  // namespace

std::vector<Family> phi3_families() {
  const ConfigDefaults defaults{
      .max_position_embeddings = 4096, .norm_eps = 1e-5F, .window_rule = WindowRule::kAll};
  return {{"phi3", defaults, nullptr, build_phi3}};
}

}  // namespace lamina
