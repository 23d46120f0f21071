// DeepSeek V2 and V3: multi-head latent attention and a mixture of experts beside shared ones. All
// heads share one cached key, the latent of k and v with a rotated part beside it. What would lift
// the latent to each head's key is applied to q instead, and what would lift it to each head's
// value to the attention output ("absorbed" form): attention then reads the latent alone. Sources:
// arXiv 2405.04434, 2412.19437.
#include <cmath>

#include "model/decoder_blocks.h"
#include "model/family.h"
#include "model/rope_scaling.h"
#include "model/weights/config_check.h"

namespace lamina {
namespace {

constexpr float kLatentNormEps = 1e-6F;  // no field says otherwise

struct LatentSizes {
  int64_t num_heads = 0;
  int64_t nope = 0;    // elements of a head's q and k that are not rotated
  int64_t rope = 0;    // rotated elements; one key of them for all heads
  int64_t value = 0;   // elements of a head's v
  int64_t latent = 0;  // kv_lora_rank
  std::optional<int32_t> q_latent;
};

LatentSizes read_sizes(const ModelConfig& config) {
  const JsonFields fields = config.fields();
  constexpr IntegerRange kWidth{1, kMaxWidth};
  constexpr IntegerRange kHead{1, kMaxHeadDim};
  return {.num_heads = config.num_heads,
          .nope = fields.required_integer("qk_nope_head_dim", kHead),
          .rope = fields.required_integer("qk_rope_head_dim", {2, kMaxHeadDim}),
          .value = fields.required_integer("v_head_dim", kHead),
          .latent = fields.required_integer("kv_lora_rank", kHead),
          .q_latent = fields.integer("q_lora_rank", kWidth)};
}

// The part of q's projection that makes rows [begin, begin + count) of every head: [T, H, count].
Sym project_q(const Scope& q_proj, const LatentSizes& sizes, Sym x, int64_t begin, int64_t count) {
  const int64_t stride = sizes.nope + sizes.rope;
  const FusedRows part{sizes.num_heads * stride, {begin, count, stride, sizes.num_heads}};
  return q_proj.linear(x, sizes.num_heads * count, {.part = part}).split_heads(sizes.num_heads);
}

// From each head's q to the latent, and from the latent to each head's v: both are in kv_b_proj,
// head by head the rows of k, then those of v.
Sym key_lift(const Scope& kv_b_proj, const LatentSizes& sizes) {
  const int64_t stride = sizes.nope + sizes.value;
  WeightSource source;
  for (int64_t head = 0; head < sizes.num_heads; ++head) {
    source = stack(std::move(source),
                   transposed_rows(kv_b_proj.path() + ".weight",
                                   {sizes.num_heads * stride, sizes.latent},
                                   head * stride,
                                   sizes.nope));
  }
  return kv_b_proj.parameter("weight.k", {sizes.num_heads, sizes.latent, sizes.nope}, source);
}

Sym value_lift(const Scope& kv_b_proj, const LatentSizes& sizes) {
  const int64_t stride = sizes.nope + sizes.value;
  const WeightSource whole =
      whole_tensor(kv_b_proj.path() + ".weight", {sizes.num_heads * stride, sizes.latent});
  return kv_b_proj.parameter("weight.v",
                             {sizes.num_heads, sizes.value, sizes.latent},
                             take_rows(whole, {sizes.nope, sizes.value, stride, sizes.num_heads}));
}

float score_scale(const ModelConfig& config, const LatentSizes& sizes) {
  double scale = 1.0 / std::sqrt(static_cast<double>(sizes.nope + sizes.rope));
  const double all_dim = config.rope.mscale_all_dim.value_or(0.0);
  if (config.rope.type != RopeType::kDefault && all_dim != 0.0 && config.rope.factor > 1.0) {
    const double magnitude = 0.1 * all_dim * std::log(config.rope.factor) + 1.0;
    scale *= magnitude * magnitude;
  }
  return static_cast<float>(scale);
}

Sym latent_attention(const Scope& self_attn,
                     const ModelConfig& config,
                     int32_t layer_idx,
                     Sym x,
                     Sym angles,
                     bool interleaved) {
  const LatentSizes sizes = read_sizes(config);
  const LinearOptions latent_linear{.bias = config.qkv_bias};
  Sym q_in = x;
  if (sizes.q_latent) {
    q_in = (self_attn / "q_a_layernorm")
               .rms_norm((self_attn / "q_a_proj").linear(x, *sizes.q_latent, latent_linear),
                         kLatentNormEps);
  }
  const Scope q_proj = self_attn / (sizes.q_latent ? "q_b_proj" : "q_proj");
  const Scope kv_b_proj = self_attn / "kv_b_proj";
  const Sym q_nope =
      head_linear(project_q(q_proj, sizes, q_in, 0, sizes.nope), key_lift(kv_b_proj, sizes));
  const Sym q_rope =
      project_q(q_proj, sizes, q_in, sizes.nope, sizes.rope).rope(angles, interleaved);

  const Scope kv_a_proj = self_attn / "kv_a_proj_with_mqa";
  const auto project_kv = [&](int64_t begin, int64_t count) {
    LinearOptions part = latent_linear;
    part.part = FusedRows{sizes.latent + sizes.rope, {begin, count}};
    return kv_a_proj.linear(x, count, part);
  };
  const Sym latent =
      (self_attn / "kv_a_layernorm").rms_norm(project_kv(0, sizes.latent), kLatentNormEps);
  const Sym k_rope = project_kv(sizes.latent, sizes.rope).split_heads(1).rope(angles, interleaved);
  const Sym key = latent.split_heads(1).concat(k_rope);

  const AttentionOptions options{.scale = score_scale(config, sizes),
                                 .window = config.windows[static_cast<size_t>(layer_idx)],
                                 .latent_width = static_cast<int32_t>(sizes.latent)};
  const Sym out = self_attn.attention(q_nope.concat(q_rope), key, key, options);
  return (self_attn / "o_proj")
      .linear(head_linear(out, value_lift(kv_b_proj, sizes)).join_heads(),
              config.hidden_size,
              {.bias = config.output_bias});
}

MoeOptions read_v2_moe(const ModelConfig& config) {
  const JsonFields fields = config.fields();
  MoeOptions options = read_moe(config, "moe_intermediate_size");
  const std::string method = fields.text("topk_method").value_or("greedy");
  if (method != "greedy" && method != "group_limited_greedy") {
    fields.refuse_value("topk_method", "greedy or group_limited_greedy");
  }
  if (fields.text("scoring_func").value_or("softmax") != "softmax") {
    fields.refuse_value("scoring_func", "softmax");
  }
  if (fields.boolean("norm_topk_prob").value_or(false)) {
    fields.refuse("deepseek_v2 with 'norm_topk_prob' true is not supported");
  }
  if (method == "group_limited_greedy") {
    options.route.num_groups = fields.required_integer("n_group", {1, options.num_experts});
    options.route.top_groups = fields.required_integer("topk_group", {1, options.route.num_groups});
  }
  options.route.scale =
      static_cast<float>(fields.number("routed_scaling_factor", {1e-6, 1e6}).value_or(1.0));
  return options;
}

MoeOptions read_v3_moe(const ModelConfig& config) {
  const JsonFields fields = config.fields();
  MoeOptions options = read_moe(config, "moe_intermediate_size");
  if (fields.text("scoring_func").value_or("sigmoid") != "sigmoid") {
    fields.refuse_value("scoring_func", "sigmoid");
  }
  if (fields.text("topk_method").value_or("noaux_tc") != "noaux_tc") {
    fields.refuse_value("topk_method", "noaux_tc");
  }
  options.route = {.top_k = options.route.top_k,
                   .scoring = RouteScoring::kSigmoid,
                   .renormalize = fields.boolean("norm_topk_prob").value_or(true),
                   .scale = static_cast<float>(
                       fields.number("routed_scaling_factor", {1e-6, 1e6}).value_or(2.5)),
                   .num_groups = fields.integer("n_group", {1, options.num_experts}).value_or(8),
                   .top_groups = fields.integer("topk_group", {1, 4096}).value_or(4)};
  return options;
}

Sym mixture(const Scope& mlp, const ModelConfig& config, Sym x) {
  const bool is_v3 = config.model_type == "deepseek_v3";
  const MoeOptions options = is_v3 ? read_v3_moe(config) : read_v2_moe(config);
  std::optional<Sym> bias;
  if (is_v3) {
    bias = (mlp / "gate").parameter("e_score_correction_bias", {options.num_experts});
  }
  const int32_t num_shared =
      config.fields().integer("n_shared_experts", {0, 4096}).value_or(is_v3 ? 1 : 2);
  const Sym routed = routed_experts(mlp / "gate", mlp / "experts", config, x, options, bias);
  if (num_shared == 0) return routed;
  return routed + gated_mlp(mlp / "shared_experts", config, x, options.width * num_shared);
}

Graph build_deepseek(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const JsonFields fields = config.fields();
  const bool is_v3 = config.model_type == "deepseek_v3";
  const bool interleaved = !is_v3 || fields.boolean("rope_interleave").value_or(true);
  const int32_t num_dense =
      fields.integer("first_k_dense_replace", {0, INT32_MAX}).value_or(is_v3 ? 3 : 0);
  if (fields.integer("moe_layer_freq", {1, INT32_MAX}).value_or(1) != 1) {
    fields.refuse_value("moe_layer_freq", "1");
  }
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model");
  const float eps = config.norm_eps;
  const Sym angles = tracer.rope_table(rope_frequencies(
      config.rope, static_cast<int32_t>(read_sizes(config).rope), config.max_position_embeddings));

  Sym x =
      (model / "embed_tokens").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Sym normed = (layer / "input_layernorm").rms_norm(x, eps);
    x = x + latent_attention(layer / "self_attn", config, i, normed, angles, interleaved);
    const Sym mlp_in = (layer / "post_attention_layernorm").rms_norm(x, eps);
    x = x + (i < num_dense ? gated_mlp(layer / "mlp", config, mlp_in)
                           : mixture(layer / "mlp", config, mlp_in));
  }
  x = (model / "norm").rms_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x));
}

void complete_deepseek(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("attention_bias").value_or(false);
  config.output_bias = config.qkv_bias;
  config.mlp_bias = config.fields().boolean("mlp_bias").value_or(false);
}

}  // namespace

std::vector<Family> deepseek_families() {
  return {{"deepseek_v2", {}, complete_deepseek, build_deepseek},
          {"deepseek_v3", {.max_position_embeddings = 4096}, complete_deepseek, build_deepseek}};
}

}  // namespace lamina
