// OLMo 2: no norm before a block but one after it, and norms over the whole width of q and k.
// Source: arXiv 2501.00656.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

Qkv project_normed_qkv(const Scope& self_attn, const ModelConfig& config, Sym x) {
  const LinearOptions linear{.bias = config.qkv_bias};
  const int64_t q_width = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv_width = int64_t{config.num_kv_heads} * config.head_dim;
  const Sym q = (self_attn / "q_norm")
                    .rms_norm((self_attn / "q_proj").linear(x, q_width, linear), config.norm_eps);
  const Sym k = (self_attn / "k_norm")
                    .rms_norm((self_attn / "k_proj").linear(x, kv_width, linear), config.norm_eps);
  const Sym v = (self_attn / "v_proj").linear(x, kv_width, linear);
  return {q.split_heads(config.num_heads),
          k.split_heads(config.num_kv_heads),
          v.split_heads(config.num_kv_heads)};
}

Graph build_olmo2(const ModelConfig& config, DType dtype) {
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
    const Qkv heads = rotated(project_normed_qkv(self_attn, config, x), angles);
    const Sym attention = self_attention(self_attn, config, i, heads);
    x = x + (layer / "post_attention_layernorm").rms_norm(attention, eps);
    const Sym mlp = gated_mlp(layer / "mlp", config, x);
    x = x + (layer / "post_feedforward_layernorm").rms_norm(mlp, eps);
  }
  x = (model / "norm").rms_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x));
}

void complete_olmo2(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("attention_bias").value_or(false);
  config.output_bias = config.qkv_bias;
}

}  // namespace

std::vector<Family> olmo2_families() {
  return {{"olmo2", {.norm_eps = 1e-5F}, complete_olmo2, build_olmo2}};
}

}  // namespace lamina
