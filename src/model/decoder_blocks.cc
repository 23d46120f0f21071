#include "model/decoder_blocks.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace lamina {
namespace {

[[noreturn]] void fail(const ModelConfig& config, const std::string& what) {
  throw Error(StatusCode::kInvalidArgument, fmt::format("{} model: {}", config.model_type, what));
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

Sym self_attention(const Scope& self_attn,
                   const ModelConfig& config,
                   Sym x,
                   Sym angles,
                   const SelfAttentionOptions& options) {
  const auto project = [&](std::string_view name, int32_t num_heads) {
    return (self_attn / name)
        .linear(x, int64_t{num_heads} * config.head_dim, {.bias = config.qkv_bias})
        .split_heads(num_heads);
  };
  Sym q = project("q_proj", config.num_heads);
  Sym k = project("k_proj", config.num_kv_heads);
  const Sym v = project("v_proj", config.num_kv_heads);
  if (options.qk_norm) {
    q = (self_attn / "q_norm").rms_norm(q, config.rms_norm_eps);
    k = (self_attn / "k_norm").rms_norm(k, config.rms_norm_eps);
  }
  q = q.rope(angles);
  k = k.rope(angles);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
  const auto window = config.windows[static_cast<size_t>(options.layer_idx)];
  const Sym out = self_attn.attention(q, k, v, {.scale = scale, .window = window});
  return (self_attn / "o_proj")
      .linear(out.join_heads(), config.hidden_size, {.bias = config.output_bias});
}

Sym gated_mlp(const Scope& mlp, const ModelConfig& config, Sym x) {
  const LinearOptions options{.bias = config.mlp_bias};
  const Sym gate = (mlp / "gate_proj").linear(x, config.intermediate_size, options);
  const Sym up = (mlp / "up_proj").linear(x, config.intermediate_size, options);
  return (mlp / "down_proj")
      .linear(gate.activated(Activation::kSilu) * up, config.hidden_size, options);
}

Sym lm_head(ModelTracer& tracer, const ModelConfig& config, Sym x) {
  const Scope head = tracer.module(config.tie_word_embeddings ? "model.embed_tokens" : "lm_head");
  return head.linear(x, config.vocab_size, {.out_dtype = DType::kF32});
}

}  // namespace lamina
