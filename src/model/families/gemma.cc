// Gemma: embeddings scaled by sqrt(hidden_size), norms that store weight - 1, tanh GELU. Gemma 2
// adds norms after each branch, soft caps and windows in every other layer; gemma 3 norms of q and
// k, and an own rotary base for the layers with a window. Sources: arXiv 2403.08295, 2408.00118,
// 2503.19786.
#include <cmath>

#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

constexpr float kWeightOffset = 1.0F;

struct GemmaOptions {
  bool post_norms = false;
  bool qk_norm = false;
  AttentionOptions attention = {};
  std::optional<float> logits_cap = std::nullopt;
};

Graph trace_gemma(const ModelConfig& config, DType dtype, const GemmaOptions& options) {
  check_dimensions(config);
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model");
  const auto norm = [&](const Scope& scope, Sym x) {
    return scope.rms_norm(x, config.norm_eps, kWeightOffset);
  };
  const Sym angles = rotary_table(tracer, config);
  const Sym sliding_angles = config.sliding_rope ? sliding_rotary_table(tracer, config) : angles;

  Sym x = (model / "embed_tokens")
              .embedding(tracer.token_ids(), config.vocab_size, config.hidden_size)
              .scaled(std::sqrt(static_cast<float>(config.hidden_size)));
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Scope self_attn = layer / "self_attn";
    Qkv heads = project_qkv(self_attn, config, norm(layer / "input_layernorm", x));
    if (options.qk_norm) {
      heads.q = norm(self_attn / "q_norm", heads.q);
      heads.k = norm(self_attn / "k_norm", heads.k);
    }
    const bool slides = config.windows[static_cast<size_t>(i)].has_value();
    heads = rotated(heads, slides ? sliding_angles : angles);
    Sym attention = self_attention(self_attn, config, i, heads, options.attention);
    if (options.post_norms) attention = norm(layer / "post_attention_layernorm", attention);
    x = x + attention;
    const char* mlp_norm =
        options.post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    Sym mlp = gated_mlp(layer / "mlp", config, norm(layer / mlp_norm, x));
    if (options.post_norms) mlp = norm(layer / "post_feedforward_layernorm", mlp);
    x = x + mlp;
  }
  const Sym logits = lm_head(tracer, config, norm(model / "norm", wanted_rows(tracer, x)));
  return tracer.finish(options.logits_cap ? logits.soft_capped(*options.logits_cap) : logits);
}

// A cap that may be null; `assumed` where config.json is silent.
std::optional<float> read_cap(const ModelConfig& config,
                              const char* field,
                              std::optional<float> assumed) {
  const JsonFields fields = config.fields();
  if (!fields.mentions(field)) return assumed;
  const std::optional<double> cap = fields.number(field, {1e-3, 1e6});
  return cap ? std::optional(static_cast<float>(*cap)) : std::nullopt;
}

float query_scale(const ModelConfig& config) {
  const double scalar =
      config.fields().number("query_pre_attn_scalar", {1e-3, 1e6}).value_or(256.0);
  return static_cast<float>(1.0 / std::sqrt(scalar));
}

Graph build_gemma(const ModelConfig& config, DType dtype) {
  return trace_gemma(config, dtype, {});
}

Graph build_gemma2(const ModelConfig& config, DType dtype) {
  GemmaOptions options{.post_norms = true,
                       .logits_cap = read_cap(config, "final_logit_softcapping", 30.0F)};
  options.attention.scale = query_scale(config);
  options.attention.soft_cap = read_cap(config, "attn_logit_softcapping", 50.0F);
  return trace_gemma(config, dtype, options);
}

Graph build_gemma3(const ModelConfig& config, DType dtype) {
  GemmaOptions options{.post_norms = true,
                       .qk_norm = true,
                       .logits_cap = read_cap(config, "final_logit_softcapping", std::nullopt)};
  options.attention.scale = query_scale(config);
  options.attention.soft_cap = read_cap(config, "attn_logit_softcapping", std::nullopt);
  return trace_gemma(config, dtype, options);
}

void complete_gemma(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("attention_bias").value_or(false);
  config.output_bias = config.qkv_bias;
}

// Before 2026 the base of sliding layers stood beside the others' parameters, which then do not
// hold for them.
void complete_gemma3(ModelConfig& config) {
  complete_gemma(config);
  if (config.sliding_rope) return;
  config.sliding_rope = RopeConfig{};
  config.sliding_rope->theta =
      config.fields().number("rope_local_base_freq", {1.0, 1e12}).value_or(10000.0);
}

}  // namespace

std::vector<Family> gemma_families() {
  ConfigDefaults defaults{.num_kv_heads = 16,
                          .head_dim = 256,
                          .max_position_embeddings = 8192,
                          .activation = Activation::kGeluTanh,
                          .tie_word_embeddings = true};
  std::vector<Family> families = {{"gemma", defaults, complete_gemma, build_gemma}};
  defaults.num_kv_heads = 4;
  defaults.window_rule = WindowRule::kNthIsFull;
  defaults.window = 4096;
  defaults.full_every = 2;
  families.push_back({"gemma2", defaults, complete_gemma, build_gemma2});
  defaults.max_position_embeddings = 131072;
  defaults.rope_theta = 1e6;
  defaults.own_sliding_rope = true;
  defaults.full_every = 6;
  families.push_back({"gemma3_text", defaults, complete_gemma3, build_gemma3});
  return families;
}

}  // namespace lamina
