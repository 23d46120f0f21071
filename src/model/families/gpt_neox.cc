// GPT-NeoX and Pythia: attention and MLP side by side on their own norms of the same input (one
// after the other where use_parallel_residual is false), q, k and v fused head by head, part of
// each head rotated. Source: arXiv 2204.06745.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

Graph build_gpt_neox(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const JsonFields fields = config.fields();
  const bool parallel = fields.boolean("use_parallel_residual").value_or(true);
  const LinearOptions attention_linear{.bias = fields.boolean("attention_bias").value_or(true)};
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("gpt_neox");
  const float eps = config.norm_eps;
  const Sym angles = rotary_table(tracer, config);

  Sym x = (model / "embed_in").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Scope attention = layer / "attention";
    const auto attention_of = [&](Sym in) {
      const Qkv heads = project_fused_qkv(
          attention / "query_key_value", config, in, FusedLayout::kByKvHead, attention_linear);
      const Sym out = attend(attention, config, i, rotated(heads, angles));
      return (attention / "dense").linear(out, config.hidden_size, attention_linear);
    };
    const auto mlp_of = [&](Sym in) {
      const Scope mlp = layer / "mlp";
      return plain_mlp(mlp / "dense_h_to_4h", mlp / "dense_4h_to_h", config, in, {.bias = true});
    };
    const Sym attention_out = attention_of((layer / "input_layernorm").layer_norm(x, eps));
    const Scope mlp_norm = layer / "post_attention_layernorm";
    if (parallel) {
      x = (x + mlp_of(mlp_norm.layer_norm(x, eps))) + attention_out;
    } else {
      x = x + attention_out;
      x = x + mlp_of(mlp_norm.layer_norm(x, eps));
    }
  }
  x = (model / "final_layer_norm").layer_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(
      lm_head(tracer, config, x, {.embedding = "gpt_neox.embed_in", .head = "embed_out"}));
}

}  // namespace

std::vector<Family> gpt_neox_families() {
  const ConfigDefaults defaults{
      .norm_eps = 1e-5F, .activation = Activation::kGelu, .partial_rotary_factor = 0.25};
  return {{"gpt_neox", defaults, nullptr, build_gpt_neox}};
}

}  // namespace lamina
