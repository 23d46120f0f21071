// Command R: attention and MLP side by side on one norm without bias, neighbouring elements
// rotated, logits scaled. Command R7B (cohere2) slides in three layers of four and rotates only
// there.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

Graph build_cohere(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const JsonFields fields = config.fields();
  const bool rotates_all = config.model_type == "cohere";
  const bool qk_norm = fields.boolean("use_qk_norm").value_or(false);
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model");
  const float eps = config.norm_eps;
  const Sym angles = rotary_table(tracer, config);

  Sym x =
      (model / "embed_tokens").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Scope self_attn = layer / "self_attn";
    const Sym normed = (layer / "input_layernorm").layer_norm(x, eps, false);
    Qkv heads = project_qkv(self_attn, config, normed);
    if (qk_norm) {  // a weight for every element of every head
      const auto norm = [&](const Scope& scope, Sym head) {
        const Shape& shape = head.type().row_shape;
        return scope.head_layer_norm(head, scope.parameter("weight", shape), eps);
      };
      heads.q = norm(self_attn / "q_norm", heads.q);
      heads.k = norm(self_attn / "k_norm", heads.k);
    }
    if (rotates_all || config.windows[static_cast<size_t>(i)]) heads = rotated(heads, angles, true);
    const Sym attention = self_attention(self_attn, config, i, heads);
    x = (x + gated_mlp(layer / "mlp", config, normed)) + attention;
  }
  x = (model / "norm").layer_norm(wanted_rows(tracer, x), eps, false);
  const double logit_scale = fields.number("logit_scale", {1e-6, 1e6}).value_or(0.0625);
  return tracer.finish(lm_head(tracer, config, x).scaled(static_cast<float>(logit_scale)));
}

void complete_cohere(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("attention_bias").value_or(false);
  config.output_bias = config.qkv_bias;
}

}  // namespace

std::vector<Family> cohere_families() {
  ConfigDefaults defaults{.max_position_embeddings = 8192,
                          .norm_eps = 1e-5F,
                          .tie_word_embeddings = true,
                          .rope_theta = 500000.0};
  std::vector<Family> families = {{"cohere", defaults, complete_cohere, build_cohere}};
  defaults.rope_theta = 10000.0;
  defaults.window_rule = WindowRule::kNthIsFull;
  defaults.window = 4096;
  defaults.full_every = 4;
  families.push_back({"cohere2", defaults, complete_cohere, build_cohere});
  return families;
}

}  // namespace lamina
