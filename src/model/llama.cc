// The llama lineage: pre-norm blocks of rotary grouped-query attention and a gated MLP. Mistral
// adds a window and qwen2 biases on q, k and v, which the configuration carries; qwen3 also
// normalises the heads of q and k.
#include "model/decoder_blocks.h"
#include "model/families.h"
#include "model/rope_scaling.h"

namespace lamina {
namespace {

struct LlamaOptions {
  bool qk_norm = false;
};

Graph trace_llama(const ModelConfig& config, DType dtype, const LlamaOptions& options) {
  check_dimensions(config);
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model");
  const float eps = config.rms_norm_eps;
  const Sym angles = tracer.rope_table(
      rope_frequencies(config.rope, config.head_dim, config.max_position_embeddings));

  Sym x =
      (model / "embed_tokens").embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Sym attention_in = (layer / "input_layernorm").rms_norm(x, eps);
    x = x + self_attention(layer / "self_attn",
                           config,
                           attention_in,
                           angles,
                           {.layer_idx = i, .qk_norm = options.qk_norm});
    const Sym mlp_in = (layer / "post_attention_layernorm").rms_norm(x, eps);
    x = x + gated_mlp(layer / "mlp", config, mlp_in);
  }
  // Only the rows whose logits are wanted go on: a prompt needs its last one.
  x = (model / "norm").rms_norm(x.gather_rows(tracer.logits_rows()), eps);
  return tracer.finish(lm_head(tracer, config, x));
}

}  // namespace

Graph build_llama(const ModelConfig& config, DType dtype) {
  return trace_llama(config, dtype, {});
}

Graph build_qwen3(const ModelConfig& config, DType dtype) {
  return trace_llama(config, dtype, {.qk_norm = true});
}

}  // namespace lamina
