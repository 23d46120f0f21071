#include "model/decoder_blocks.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "model/rope_scaling.h"
#include "model/weights/config_check.h"

namespace lamina {
namespace {

[[noreturn]] void fail(const ModelConfig& config, const std::string& what) {
  throw Error(StatusCode::kInvalidArgument, fmt::format("{} model: {}", config.model_type, what));
}

// gate and up of every expert on top of each other: [X, 2 I, E].
Sym stacked_gate_up(const Scope& experts, const MoeOptions& options, int64_t in_width) {
  WeightSource source;
  for (int32_t x = 0; x < options.num_experts; ++x) {
    for (const std::string_view name : {options.names.gate, options.names.up}) {
      const std::string tensor = (experts / x / name).path() + ".weight";
      source = stack(std::move(source), whole_tensor(tensor, {options.width, in_width}));
    }
  }
  return experts.parameter(
      "gate_up", {options.num_experts, 2 * options.width, in_width}, std::move(source));
}

Sym stacked_down(const Scope& experts, const MoeOptions& options, int64_t out_width) {
  WeightSource source;
  for (int32_t x = 0; x < options.num_experts; ++x) {
    const std::string tensor = (experts / x / options.names.down).path() + ".weight";
    source = stack(std::move(source), whole_tensor(tensor, {out_width, options.width}));
  }
  return experts.parameter(
      "down", {options.num_experts, out_width, options.width}, std::move(source));
}

}  // namespace

void check_dimensions(const ModelConfig& config) {
  const std::pair<std::string_view, int32_t> sizes[] = {
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_layers", config.num_layers},
      {"num_heads", config.num_heads},
      {"num_kv_heads", config.num_kv_heads},
      {"head_dim", config.head_dim}};
  for (const auto& [name, size] : sizes) {
    if (size <= 0) fail(config, fmt::format("{} is {}, not positive", name, size));
  }
  if (config.num_heads % config.num_kv_heads != 0) {
    fail(config,
         fmt::format("num_heads {} is no multiple of num_kv_heads {}",
                     config.num_heads,
                     config.num_kv_heads));
  }
  if (config.windows.size() != static_cast<size_t>(config.num_layers)) {
    fail(config, fmt::format("{} windows for {} layers", config.windows.size(), config.num_layers));
  }
}

Sym rotary_table(ModelTracer& tracer, const ModelConfig& config) {
  return tracer.rope_table(
      rope_frequencies(config.rope, config.head_dim, config.max_position_embeddings));
}

Sym sliding_rotary_table(ModelTracer& tracer, const ModelConfig& config) {
  return tracer.rope_table(rope_frequencies(
      config.sliding_rope.value_or(config.rope), config.head_dim, config.max_position_embeddings));
}

Qkv project_qkv(const Scope& self_attn, const ModelConfig& config, Sym x) {
  const auto project = [&](std::string_view name, int32_t num_heads) {
    return (self_attn / name)
        .linear(x, int64_t{num_heads} * config.head_dim, {.bias = config.qkv_bias})
        .split_heads(num_heads);
  };
  const Sym q = project("q_proj", config.num_heads);
  const Sym k = project("k_proj", config.num_kv_heads);
  return {q, k, project("v_proj", config.num_kv_heads)};
}

Qkv project_fused_qkv(const Scope& fused,
                      const ModelConfig& config,
                      Sym x,
                      FusedLayout layout,
                      const LinearOptions& options) {
  const int64_t head_dim = config.head_dim;
  const int64_t num_kv_heads = config.num_kv_heads;
  const int64_t q_width = config.num_heads * head_dim;
  const int64_t kv_width = num_kv_heads * head_dim;
  const auto project = [&](int64_t num_heads, const RowPattern& rows) {
    LinearOptions part = options;
    part.part = FusedRows{q_width + 2 * kv_width, rows};
    return fused.linear(x, num_heads * head_dim, part).split_heads(num_heads);
  };
  if (layout == FusedLayout::kBlocks) {
    const Sym q = project(config.num_heads, {0, q_width});
    const Sym k = project(num_kv_heads, {q_width, kv_width});
    return {q, k, project(num_kv_heads, {q_width + kv_width, kv_width})};
  }
  const int64_t group_rows = q_width / num_kv_heads;
  const int64_t stride = group_rows + 2 * head_dim;
  const Sym q = project(config.num_heads, {0, group_rows, stride, num_kv_heads});
  const Sym k = project(num_kv_heads, {group_rows, head_dim, stride, num_kv_heads});
  return {q, k, project(num_kv_heads, {group_rows + head_dim, head_dim, stride, num_kv_heads})};
}

Qkv rotated(const Qkv& heads, Sym table, bool interleaved) {
  const Sym q = heads.q.rope(table, interleaved);
  return {q, heads.k.rope(table, interleaved), heads.v};
}

Sym attend(const Scope& self_attn,
           const ModelConfig& config,
           int32_t layer_idx,
           const Qkv& heads,
           AttentionOptions options) {
  options.window = config.windows[static_cast<size_t>(layer_idx)];
  return self_attn.attention(heads.q, heads.k, heads.v, options).join_heads();
}

Sym self_attention(const Scope& self_attn,
                   const ModelConfig& config,
                   int32_t layer_idx,
                   const Qkv& heads,
                   AttentionOptions options) {
  const Sym out = attend(self_attn, config, layer_idx, heads, std::move(options));
  return (self_attn / "o_proj").linear(out, config.hidden_size, {.bias = config.output_bias});
}

Sym gated_mlp(const Scope& mlp, const ModelConfig& config, Sym x, int64_t width) {
  if (width == 0) width = config.intermediate_size;
  const LinearOptions options{.bias = config.mlp_bias};
  const Sym gate = (mlp / "gate_proj").linear(x, width, options);
  const Sym up = (mlp / "up_proj").linear(x, width, options);
  return (mlp / "down_proj")
      .linear(gate.activated(config.activation) * up, config.hidden_size, options);
}

Sym plain_mlp(
    const Scope& up, const Scope& down, const ModelConfig& config, Sym x, LinearOptions options) {
  const Sym inner = up.linear(x, config.intermediate_size, options).activated(config.activation);
  return down.linear(inner, config.hidden_size, options);
}

Sym routed_experts(const Scope& gate,
                   const Scope& experts_scope,
                   const ModelConfig& config,
                   Sym x,
                   const MoeOptions& options,
                   std::optional<Sym> correction_bias) {
  const Sym logits = gate.linear(x, options.num_experts, {.out_dtype = DType::kF32});
  const ExpertWeights weights{.gate_up = stacked_gate_up(experts_scope, options, x.width()),
                              .down = stacked_down(experts_scope, options, config.hidden_size)};
  return experts(
      x, logits.routed(options.route, correction_bias), weights, {config.activation, std::nullopt});
}

MoeOptions read_moe(const ModelConfig& config, std::string_view width_field) {
  constexpr IntegerRange kExperts{1, 4096};
  const JsonFields fields = config.fields();
  std::string_view count = "num_experts";
  for (const std::string_view name : {"num_local_experts", "n_routed_experts"}) {
    if (fields.has(name)) count = name;
  }
  MoeOptions options{.num_experts = fields.required_integer(count, kExperts),
                     .width = fields.required_integer(width_field, {1, kMaxWidth}),
                     .route = {}};
  options.route.top_k = fields.required_integer("num_experts_per_tok", {1, options.num_experts});
  return options;
}

Sym lm_head(ModelTracer& tracer, const ModelConfig& config, Sym x, const HeadOptions& options) {
  const bool tied = config.tie_word_embeddings;
  const Scope head = tracer.module(std::string(tied ? options.embedding : options.head));
  return head.linear(
      x, config.vocab_size, {.bias = options.bias && !tied, .out_dtype = DType::kF32});
}

}  // namespace lamina
