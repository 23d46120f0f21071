// BLOOM: no positions but ALiBi's linear biases (arXiv 2108.12409), a norm of the embedding, q, k
// and v fused head by head. Source: arXiv 2211.05100.
#include <bit>
#include <cmath>

#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

// A geometric series for the heads up to a power of two, every other term of the next finer series
// for the rest.
std::vector<float> alibi_slopes(int32_t num_heads) {
  const auto whole = static_cast<int32_t>(std::bit_floor(static_cast<uint32_t>(num_heads)));
  const auto series = [](int32_t terms, int32_t i) {
    return static_cast<float>(std::pow(2.0, -8.0 * i / terms));
  };
  std::vector<float> slopes;
  for (int32_t i = 1; i <= whole; ++i) slopes.push_back(series(whole, i));
  for (int32_t i = 1; i <= num_heads - whole; ++i) slopes.push_back(series(2 * whole, 2 * i - 1));
  return slopes;
}

Graph build_bloom(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const bool normed_residual =
      config.fields().boolean("apply_residual_connection_post_layernorm").value_or(false);
  const LinearOptions linear{.bias = true};
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("transformer");
  const float eps = config.norm_eps;

  Sym x = (model / "word_embeddings")
              .embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  x = (model / "word_embeddings_layernorm").layer_norm(x, eps);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "h" / i;
    const Scope attention = layer / "self_attention";
    const Scope mlp = layer / "mlp";
    Sym normed = (layer / "input_layernorm").layer_norm(x, eps);
    const Qkv heads = project_fused_qkv(
        attention / "query_key_value", config, normed, FusedLayout::kByKvHead, linear);
    const Sym out =
        attend(attention, config, i, heads, {.alibi_slopes = alibi_slopes(config.num_heads)});
    x = (normed_residual ? normed : x) +
        (attention / "dense").linear(out, config.hidden_size, linear);
    normed = (layer / "post_attention_layernorm").layer_norm(x, eps);
    x = (normed_residual ? normed : x) +
        plain_mlp(mlp / "dense_h_to_4h", mlp / "dense_4h_to_h", config, normed, linear);
  }
  x = (model / "ln_f").layer_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x, {.embedding = "transformer.word_embeddings"}));
}

}  // namespace

std::vector<Family> bloom_families() {
  const ConfigDefaults defaults{.intermediate_factor = 4,
                                .norm_eps = 1e-5F,
                                .activation = Activation::kGeluTanh,
                                .tie_word_embeddings = true};
  return {{"bloom", defaults, nullptr, build_bloom}};
}

}  // namespace lamina
