// Falcon: attention and MLP side by side, on one norm (7B, 11B) or two (40B, 180B); the oldest
// models have them one after the other. q, k and v are fused by KV head. Source: arXiv 2311.16867.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

struct FalconOptions {
  bool parallel = true;
  bool two_norms = false;  // one each for attention and MLP, of the same input
  bool bias = false;
};

FalconOptions read_options(const ModelConfig& config) {
  const JsonFields fields = config.fields();
  // The reference rounds its biases to bfloat16, whatever the model computes in.
  if (fields.boolean("alibi").value_or(false))
    fields.refuse("falcon with 'alibi' is not supported");
  const bool is_new = fields.boolean("new_decoder_architecture").value_or(false);
  const int32_t num_norms =
      fields.integer("num_ln_in_parallel_attn", {1, 2}).value_or(is_new ? 2 : 1);
  FalconOptions options{.parallel = fields.boolean("parallel_attn").value_or(true),
                        .two_norms = num_norms == 2,
                        .bias = fields.boolean("bias").value_or(false)};
  if ((is_new && !options.parallel) || (!is_new && options.two_norms)) {
    fields.refuse(
        "'new_decoder_architecture', 'parallel_attn' and 'num_ln_in_parallel_attn' do not fit "
        "together");
  }
  return options;
}

Graph build_falcon(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const FalconOptions options = read_options(config);
  const LinearOptions linear{.bias = options.bias};
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("transformer");
  const float eps = config.norm_eps;
  const Sym angles = rotary_table(tracer, config);

  Sym x = (model / "word_embeddings")
              .embedding(tracer.token_ids(), config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "h" / i;
    const Scope attention = layer / "self_attention";
    const auto mlp_of = [&](Sym in) {
      const Scope mlp = layer / "mlp";
      return plain_mlp(mlp / "dense_h_to_4h", mlp / "dense_4h_to_h", config, in, linear);
    };
    const Sym normed =
        (layer / (options.two_norms ? "ln_attn" : "input_layernorm")).layer_norm(x, eps);
    const Qkv heads = project_fused_qkv(
        attention / "query_key_value", config, normed, FusedLayout::kByKvHead, linear);
    const Sym out = attend(attention, config, i, rotated(heads, angles));
    const Sym attention_out = (attention / "dense").linear(out, config.hidden_size, linear);
    if (options.parallel) {
      const Sym mlp_in = options.two_norms ? (layer / "ln_mlp").layer_norm(x, eps) : normed;
      x = (x + mlp_of(mlp_in)) + attention_out;
    } else {
      x = x + attention_out;
      x = x + mlp_of((layer / "post_attention_layernorm").layer_norm(x, eps));
    }
  }
  x = (model / "ln_f").layer_norm(wanted_rows(tracer, x), eps);
  return tracer.finish(lm_head(tracer, config, x, {.embedding = "transformer.word_embeddings"}));
}

// Only the new architecture's number of KV heads is free.
void complete_falcon(ModelConfig& config) {
  const JsonFields fields = config.fields();
  if (fields.boolean("new_decoder_architecture").value_or(false)) return;
  const bool multi_query = fields.boolean("multi_query").value_or(true);
  config.num_kv_heads = multi_query ? 1 : config.num_heads;
}

}  // namespace

std::vector<Family> falcon_families() {
  const ConfigDefaults defaults{.intermediate_factor = 4,
                                .norm_eps = 1e-5F,
                                .activation = Activation::kGelu,
                                .tie_word_embeddings = true};
  return {{"falcon", defaults, complete_falcon, build_falcon}};
}

}  // namespace lamina
