// GPT-2: learned positions, LayerNorm, a fused projection of q, k, v, and weights that are stored
// [in, out].
#include <cmath>

#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

constexpr LinearOptions kConv1D{.bias = true, .stored_transposed = true};

float score_scale(const ModelConfig& config, int32_t layer_idx) {
  const JsonFields fields = config.fields();
  double scale = 1.0;
  if (fields.boolean("scale_attn_weights").value_or(true)) scale /= std::sqrt(config.head_dim);
  if (fields.boolean("scale_attn_by_inverse_layer_idx").value_or(false)) scale /= layer_idx + 1;
  return static_cast<float>(scale);
}

Graph build_gpt2(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("transformer");
  const float eps = config.norm_eps;
  const int32_t width = config.hidden_size;

  Sym x = (model / "wte").embedding(tracer.token_ids(), config.vocab_size, width) +
          (model / "wpe").embedding(tracer.positions(), config.max_position_embeddings, width);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "h" / i;
    const Scope attn = layer / "attn";
    const Sym normed = (layer / "ln_1").layer_norm(x, eps);
    const Qkv heads =
        project_fused_qkv(attn / "c_attn", config, normed, FusedLayout::kBlocks, kConv1D);
    const Sym out = attend(attn, config, i, heads, {.scale = score_scale(config, i)});
    x = x + (attn / "c_proj").linear(out, width, kConv1D);
    const Scope mlp = layer / "mlp";
    x = x + plain_mlp(
                mlp / "c_fc", mlp / "c_proj", config, (layer / "ln_2").layer_norm(x, eps), kConv1D);
  }
  x = (model / "ln_f").layer_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x, {.embedding = "transformer.wte"}));
}

}  // namespace

std::vector<Family> gpt2_families() {
  const ConfigDefaults defaults{.max_position_embeddings = 1024,
                                .intermediate_factor = 4,
                                .norm_eps = 1e-5F,
                                .activation = Activation::kGeluTanh,
                                .tie_word_embeddings = true};
  return {{"gpt2", defaults, nullptr, build_gpt2}};
}

}  // namespace lamina
