// gpt-oss: attention with a learned sink for each head, windows in every other layer, and experts
// with biases whose gate and up rows alternate. Source: arXiv 2508.10925.
#include <string>

#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

// Gate and up rows alternate in what `both` is of one expert.
void add_expert(WeightSource& gate_up, const WeightSource& both, int64_t inner) {
  for (const int64_t first : {0, 1}) {
    gate_up = stack(std::move(gate_up), take_rows(both, {first, 1, 2, inner}));
  }
}

struct ExpertSources {
  WeightSource gate_up;
  WeightSource down;
};

// Stored as [X, in, out].
ExpertSources plain_sources(const std::string& path, const MoeOptions& options, int64_t width) {
  const int64_t num_experts = options.num_experts;
  const int64_t inner = options.width;
  ExpertSources sources;
  for (int64_t x = 0; x < num_experts; ++x) {
    add_expert(
        sources.gate_up,
        transposed_rows(path + ".gate_up_proj", {num_experts, width, 2 * inner}, x * width, width),
        inner);
    sources.down =
        stack(std::move(sources.down),
              transposed_rows(path + ".down_proj", {num_experts, inner, width}, x * inner, inner));
  }
  return sources;
}

// Published checkpoints: MXFP4 blocks along the inner axis, so stored as [X, out, in].
ExpertSources mxfp4_sources(const std::string& path, const MoeOptions& options, int64_t width) {
  const int64_t num_experts = options.num_experts;
  const int64_t rows = 2 * options.width;
  const WeightSource both = whole_tensor(path + ".gate_up_proj_blocks", {num_experts, rows, width});
  ExpertSources sources;
  for (int64_t x = 0; x < num_experts; ++x) {
    add_expert(sources.gate_up, take_rows(both, {x * rows, rows}), options.width);
  }
  sources.down = whole_tensor(path + ".down_proj_blocks", {num_experts, width, options.width});
  return sources;
}

ExpertWeights expert_weights(const Scope& experts,
                             const ModelConfig& config,
                             const MoeOptions& options) {
  const int64_t num_experts = options.num_experts;
  const int64_t inner = options.width;
  const int64_t width = config.hidden_size;
  const bool is_quantised = config.fields().has("quantization_config");
  ExpertSources sources = is_quantised ? mxfp4_sources(experts.path(), options, width)
                                       : plain_sources(experts.path(), options, width);
  WeightSource gate_up_bias;
  for (int64_t x = 0; x < num_experts; ++x) {
    add_expert(
        gate_up_bias,
        transposed_rows(experts.path() + ".gate_up_proj_bias", {num_experts, 2 * inner}, x, 1),
        inner);
  }
  return {.gate_up = experts.parameter("gate_up", {num_experts, 2 * inner, width}, sources.gate_up),
          .down = experts.parameter("down", {num_experts, width, inner}, sources.down),
          .gate_up_bias = experts.parameter("gate_up_bias", {num_experts, 2 * inner}, gate_up_bias),
          .down_bias = experts.parameter("down_proj_bias", {num_experts, width})};
}

Sym mixture(const Scope& mlp, const ModelConfig& config, Sym x) {
  MoeOptions options = read_moe(config, "intermediate_size");
  options.route.renormalize = true;
  const auto limit =
      static_cast<float>(config.fields().number("swiglu_limit", {1e-3, 1e6}).value_or(7.0));
  const Sym logits =
      (mlp / "router").linear(x, options.num_experts, {.bias = true, .out_dtype = DType::kF32});
  return experts(x,
                 logits.routed(options.route),
                 expert_weights(mlp / "experts", config, options),
                 {Activation::kQuickGelu, limit});
}

Graph build_gpt_oss(const ModelConfig& config, DType dtype) {
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
    const Sym normed = (layer / "input_layernorm").rms_norm(x, eps);
    const Qkv heads = rotated(project_qkv(self_attn, config, normed), angles);
    x = x + self_attention(self_attn,
                           config,
                           i,
                           heads,
                           {.sinks = self_attn.parameter("sinks", {config.num_heads})});
    x = x + mixture(layer / "mlp", config, (layer / "post_attention_layernorm").rms_norm(x, eps));
  }
  x = (model / "norm").rms_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x));
}

void complete_gpt_oss(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("attention_bias").value_or(true);
  config.output_bias = config.qkv_bias;
  if (config.activation != Activation::kSilu) {
    config.fields().refuse("gpt_oss with another 'hidden_act' than silu is not supported");
  }
}

}  // namespace

std::vector<Family> gpt_oss_families() {
  const ConfigDefaults defaults{.num_kv_heads = 8,
                                .head_dim = 64,
                                .max_position_embeddings = 131072,
                                .norm_eps = 1e-5F,
                                .rope_theta = 150000.0,
                                .window_rule = WindowRule::kNthIsFull,
                                .window = 128,
                                .full_every = 2,
                                .quant_method = "mxfp4"};
  return {{"gpt_oss", defaults, complete_gpt_oss, build_gpt_oss}};
}

}  // namespace lamina
