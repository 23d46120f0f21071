// Llama-like blocks whose MLP is a mixture of experts: mixtral, qwen2_moe (with an expert that
// every token goes to) and qwen3_moe. Sources: arXiv 2401.04088, Qwen1.5-MoE, Qwen3.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

// The MLP of one layer, of x [T, E] that is normed.
using MlpBlock = Sym (*)(const Scope& layer, const ModelConfig& config, int32_t layer_idx, Sym x);

Graph trace_mixture(const ModelConfig& config, DType dtype, bool qk_norm, MlpBlock mlp) {
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
    Qkv heads = project_qkv(self_attn, config, (layer / "input_layernorm").rms_norm(x, eps));
    if (qk_norm) {
      heads.q = (self_attn / "q_norm").rms_norm(heads.q, eps);
      heads.k = (self_attn / "k_norm").rms_norm(heads.k, eps);
    }
    x = x + self_attention(self_attn, config, i, rotated(heads, angles));
    x = x + mlp(layer, config, i, (layer / "post_attention_layernorm").rms_norm(x, eps));
  }
  x = (model / "norm").rms_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x));
}

Sym mixtral_mlp(const Scope& layer, const ModelConfig& config, int32_t /*layer_idx*/, Sym x) {
  MoeOptions options = read_moe(config, "intermediate_size");
  options.route.renormalize = true;
  options.names = {"w1", "w3", "w2"};
  const Scope moe = layer / "block_sparse_moe";
  return routed_experts(moe / "gate", moe / "experts", config, x, options);
}

// Some layers of the qwen families keep an ordinary MLP.
bool is_dense(const ModelConfig& config, int32_t layer_idx) {
  const JsonFields fields = config.fields();
  const int32_t step = fields.integer("decoder_sparse_step", {1, INT32_MAX}).value_or(1);
  if ((layer_idx + 1) % step != 0) return true;
  const nlohmann::json* dense = fields.find("mlp_only_layers");
  if (dense == nullptr) return false;
  if (!dense->is_array()) fields.refuse_value("mlp_only_layers", "a list of layers");
  return std::ranges::find(*dense, nlohmann::json(layer_idx)) != dense->end();
}

MoeOptions qwen_options(const ModelConfig& config) {
  MoeOptions options = read_moe(config, "moe_intermediate_size");
  options.route.renormalize = config.fields().boolean("norm_topk_prob").value_or(false);
  return options;
}

Sym qwen3_mlp(const Scope& layer, const ModelConfig& config, int32_t layer_idx, Sym x) {
  const Scope mlp = layer / "mlp";
  if (is_dense(config, layer_idx)) return gated_mlp(mlp, config, x);
  return routed_experts(mlp / "gate", mlp / "experts", config, x, qwen_options(config));
}

Sym qwen2_mlp(const Scope& layer, const ModelConfig& config, int32_t layer_idx, Sym x) {
  const Scope mlp = layer / "mlp";
  if (is_dense(config, layer_idx)) return gated_mlp(mlp, config, x);
  const int32_t shared_width =
      config.fields().required_integer("shared_expert_intermediate_size", {1, INT32_MAX});
  const Sym shared_weight =
      (mlp / "shared_expert_gate").linear(x, 1).activated(Activation::kSigmoid);
  const Sym shared = gated_mlp(mlp / "shared_expert", config, x, shared_width) * shared_weight;
  return routed_experts(mlp / "gate", mlp / "experts", config, x, qwen_options(config)) + shared;
}

Graph build_mixtral(const ModelConfig& config, DType dtype) {
  return trace_mixture(config, dtype, false, mixtral_mlp);
}
Graph build_qwen2_moe(const ModelConfig& config, DType dtype) {
  return trace_mixture(config, dtype, false, qwen2_mlp);
}
Graph build_qwen3_moe(const ModelConfig& config, DType dtype) {
  return trace_mixture(config, dtype, true, qwen3_mlp);
}

void complete_qwen2_moe(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("qkv_bias").value_or(true);
}
void complete_qwen3_moe(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("attention_bias").value_or(false);
  config.output_bias = config.qkv_bias;
}

}  // namespace

std::vector<Family> mixture_families() {
  const ConfigDefaults mixtral{.num_kv_heads = 8,
                               .max_position_embeddings = 131072,
                               .norm_eps = 1e-5F,
                               .rope_theta = 1e6,
                               .window_rule = WindowRule::kAll};
  ConfigDefaults qwen{.num_kv_heads = 16,
                      .max_position_embeddings = 32768,
                      .window_rule = WindowRule::kFromLayer,
                      .window = 4096};
  std::vector<Family> families = {{"mixtral", mixtral, nullptr, build_mixtral},
                                  {"qwen2_moe", qwen, complete_qwen2_moe, build_qwen2_moe}};
  qwen.num_kv_heads = 4;
  families.push_back({"qwen3_moe", qwen, complete_qwen3_moe, build_qwen3_moe});
  return families;
}

}  // namespace lamina
