// GPT-J: attention and MLP side by side on one norm, neighbouring elements rotated in the first
// rotary_dim of each head.
#include <cmath>

#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

Graph build_gptj(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("transformer");
  const float eps = config.norm_eps;
  const Sym angles = rotary_table(tracer, config);

  Sym x = (model / "wte").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "h" / i;
    const Scope attn = layer / "attn";
    const Scope mlp = layer / "mlp";
    const Sym normed = (layer / "ln_1").layer_norm(x, eps);
    const Qkv heads = rotated(project_qkv(attn, config, normed), angles, true);
    const Sym attention =
        (attn / "out_proj").linear(attend(attn, config, i, heads), config.hidden_size);
    x = (x + plain_mlp(mlp / "fc_in", mlp / "fc_out", config, normed, {.bias = true})) + attention;
  }
  x = (model / "ln_f").layer_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x, {.embedding = "transformer.wte", .bias = true}));
}

void complete_gptj(ModelConfig& config) {
  const int32_t rotary_dim =
      config.fields().integer("rotary_dim", {2, config.head_dim}).value_or(64);
  // The factor is cut to whole elements later: it must not fall below the one meant.
  config.rope.partial_rotary_factor =
      std::min(1.0, std::nextafter(static_cast<double>(rotary_dim) / config.head_dim, 2.0));
}

}  // namespace

std::vector<Family> gptj_families() {
  const ConfigDefaults defaults{
      .intermediate_factor = 4, .norm_eps = 1e-5F, .activation = Activation::kGeluTanh};
  return {{"gptj", defaults, complete_gptj, build_gptj}};
}

}  // namespace lamina
