// Phi-1 and Phi-2: attention and MLP side by side on one norm, biases everywhere, part of each head
// rotated.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

Graph build_phi(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const bool qk_norm = config.fields().boolean("qk_layernorm").value_or(false);
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
    Qkv heads = project_qkv(self_attn, config, normed);
    if (qk_norm) {
      heads.q = (self_attn / "q_layernorm").layer_norm(heads.q, eps);
      heads.k = (self_attn / "k_layernorm").layer_norm(heads.k, eps);
    }
    const Sym out = attend(self_attn, config, i, rotated(heads, angles));
    const Sym attention = (self_attn / "dense").linear(out, config.hidden_size, {.bias = true});
    x = (x + plain_mlp(mlp / "fc1", mlp / "fc2", config, normed, {.bias = true})) + attention;
  }
  x = (model / "final_layernorm").layer_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x, {.bias = true}));
}

void complete_phi(ModelConfig& config) {
  config.qkv_bias = true;
}

}  // namespace

std::vector<Family> phi_families() {
  const ConfigDefaults defaults{
      .norm_eps = 1e-5F, .activation = Activation::kGeluTanh, .partial_rotary_factor = 0.5};
  return {{"phi", defaults, complete_phi, build_phi}};
}

}  // namespace lamina
