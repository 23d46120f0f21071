// StableLM 2 and 3: the llama block with LayerNorm and part of each head rotated; the 12B model has
// attention and MLP side by side, and an own norm for each head of q and k. Source: arXiv
// 2402.17834.
#include <string>

#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

// x [T, H, D]: every head by its own norm, whose weight is stored apart.
Sym head_norms(const Scope& norms, Sym x, float eps) {
  const int64_t num_heads = x.type().row_shape[0];
  WeightSource source;
  for (int32_t head = 0; head < num_heads; ++head) {
    // One element a row in the file: a row of the stack is a head.
    const std::string tensor = (norms / "norms" / head).path() + ".weight";
    source = stack(std::move(source), whole_tensor(tensor, {x.width()}));
  }
  return norms.head_layer_norm(
      x, norms.parameter("weight", {num_heads, x.width()}, std::move(source)), eps);
}

Graph build_stablelm(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const JsonFields fields = config.fields();
  const bool parallel = fields.boolean("use_parallel_residual").value_or(false);
  const bool qk_norm = fields.boolean("qk_layernorm").value_or(false);
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model");
  const float eps = config.norm_eps;
  const Sym angles = rotary_table(tracer, config);

  Sym x =
      (model / "embed_tokens").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Scope self_attn = layer / "self_attn";
    const Sym normed = (layer / "input_layernorm").layer_norm(x, eps);
    Qkv heads = project_qkv(self_attn, config, normed);
    if (qk_norm) {
      heads.q = head_norms(self_attn / "q_layernorm", heads.q, eps);
      heads.k = head_norms(self_attn / "k_layernorm", heads.k, eps);
    }
    const Sym attention = self_attention(self_attn, config, i, rotated(heads, angles));
    if (parallel) {
      x = (x + gated_mlp(layer / "mlp", config, normed)) + attention;
    } else {
      x = x + attention;
      x = x +
          gated_mlp(layer / "mlp", config, (layer / "post_attention_layernorm").layer_norm(x, eps));
    }
  }
  x = (model / "norm").layer_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x));
}

void complete_stablelm(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("use_qkv_bias").value_or(false);
}

}  // namespace

std::vector<Family> stablelm_families() {
  const ConfigDefaults defaults{.num_kv_heads = 32,
                                .max_position_embeddings = 4096,
                                .norm_eps = 1e-5F,
                                .partial_rotary_factor = 0.25};
  return {{"stablelm", defaults, complete_stablelm, build_stablelm}};
}

}  // namespace lamina
