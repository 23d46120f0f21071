// StarCoder 2: rotary grouped-query attention with LayerNorm, biases and a plain MLP. Source: arXiv
// 2402.19173.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

Graph build_starcoder2(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const LinearOptions linear{.bias = config.mlp_bias};
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model");
  const float eps = config.norm_eps;
  const Sym angles = rotary_table(tracer, config);

  Sym x =
      (model / "embed_tokens").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Scope self_attn = layer / "self_attn";
    const Scope mlp = layer / "mlp";
    const Sym normed = (layer / "input_layernorm").layer_norm(x, eps);
    const Qkv heads = rotated(project_qkv(self_attn, config, normed), angles);
    x = x + self_attention(self_attn, config, i, heads);
    x = x + plain_mlp(mlp / "c_fc",
                      mlp / "c_proj",
                      config,
                      (layer / "post_attention_layernorm").layer_norm(x, eps),
                      linear);
  }
  x = (model / "norm").layer_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x));
}

void complete_starcoder2(ModelConfig& config) {
  const bool bias = config.fields().boolean("use_bias").value_or(true);
  config.qkv_bias = config.output_bias = config.mlp_bias = bias;
}

}  // namespace

std::vector<Family> starcoder2_families() {
  const ConfigDefaults defaults{.num_kv_heads = 2,
                                .max_position_embeddings = 4096,
                                .norm_eps = 1e-5F,
                                .activation = Activation::kGeluTanh,
                                .tie_word_embeddings = true,
                                .window_rule = WindowRule::kAll};
  return {{"starcoder2", defaults, complete_starcoder2, build_starcoder2}};
}

}  // namespace lamina
