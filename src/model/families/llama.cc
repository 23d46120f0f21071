// The llama lineage: pre-norm blocks of rotary grouped-query attention and a gated MLP. Mistral
// adds a window, qwen2 biases on q, k and v, qwen3 a norm over the heads of q and k, granite
// constant factors.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

// Granite's; 1 elsewhere.
struct Multipliers {
  float embedding = 1.0F;
  float residual = 1.0F;
  float logits = 1.0F;
  std::optional<float> attention = std::nullopt;  // the scale of scores
};

struct LlamaOptions {
  bool qk_norm = false;
  Multipliers multipliers = {};
};

Sym scaled_unless_one(Sym x, float factor) {
  return factor == 1.0F ? x : x.scaled(factor);
}

Graph trace_llama(const ModelConfig& config, DType dtype, const LlamaOptions& options) {
  check_dimensions(config);
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model");
  const float eps = config.norm_eps;
  const Multipliers& multipliers = options.multipliers;
  const Sym angles = rotary_table(tracer, config);

  Sym x =
      (model / "embed_tokens").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  x = scaled_unless_one(x, multipliers.embedding);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Scope self_attn = layer / "self_attn";
    Qkv heads = project_qkv(self_attn, config, (layer / "input_layernorm").rms_norm(x, eps));
    if (options.qk_norm) {
      heads.q = (self_attn / "q_norm").rms_norm(heads.q, eps);
      heads.k = (self_attn / "k_norm").rms_norm(heads.k, eps);
    }
    const Sym attention = self_attention(
        self_attn, config, i, rotated(heads, angles), {.scale = multipliers.attention});
    x = x + scaled_unless_one(attention, multipliers.residual);
    const Sym mlp =
        gated_mlp(layer / "mlp", config, (layer / "post_attention_layernorm").rms_norm(x, eps));
    x = x + scaled_unless_one(mlp, multipliers.residual);
  }
  x = (model / "norm").rms_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(scaled_unless_one(lm_head(tracer, config, x), multipliers.logits));
}

Graph build_llama(const ModelConfig& config, DType dtype) {
  return trace_llama(config, dtype, {});
}

Graph build_qwen3(const ModelConfig& config, DType dtype) {
  return trace_llama(config, dtype, {.qk_norm = true});
}

Graph build_granite(const ModelConfig& config, DType dtype) {
  const JsonFields fields = config.fields();
  const auto multiplier = [&](const char* field) {
    return static_cast<float>(fields.number(field, {1e-6, 1e6}).value_or(1.0));
  };
  LlamaOptions options;
  options.multipliers = {.embedding = multiplier("embedding_multiplier"),
                         .residual = multiplier("residual_multiplier"),
                         .logits = 1.0F / multiplier("logits_scaling"),
                         .attention = multiplier("attention_multiplier")};
  return trace_llama(config, dtype, options);
}

void complete_llama(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("attention_bias").value_or(false);
  config.output_bias = config.qkv_bias;
  config.mlp_bias = config.fields().boolean("mlp_bias").value_or(false);
}

void complete_qwen2(ModelConfig& config) {
  config.qkv_bias = true;
}

void complete_qwen3(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("attention_bias").value_or(false);
  config.output_bias = config.qkv_bias;
}

}  // namespace

std::vector<Family> llama_families() {
  const ConfigDefaults mistral{.num_kv_heads = 8,
                               .max_position_embeddings = 131072,
                               .window_rule = WindowRule::kAll,
                               .window = 4096};
  ConfigDefaults qwen{.num_kv_heads = 32,
                      .max_position_embeddings = 32768,
                      .window_rule = WindowRule::kFromLayer,
                      .window = 4096};
  std::vector<Family> families = {{"llama", {}, complete_llama, build_llama},
                                  {"granite", {}, complete_llama, build_granite},
                                  {"mistral", mistral, nullptr, build_llama},
                                  {"qwen2", qwen, complete_qwen2, build_llama}};
  qwen.head_dim = 128;
  families.push_back({"qwen3", qwen, complete_qwen3, build_qwen3});
  return families;
}

}  // namespace lamina
