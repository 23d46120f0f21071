// OPT: learned positions from row 2 on, LayerNorm before each block (after it in the 350M model,
// whose embeddings are also narrower than its blocks). Source: arXiv 2205.01068.
#include "model/decoder_blocks.h"
#include "model/family.h"

namespace lamina {
namespace {

constexpr int64_t kPositionOffset = 2;
constexpr float kEps = 1e-5F;  // no field says otherwise

struct OptOptions {
  bool norm_first = true;
  bool final_norm = true;
  bool bias = true;
  int32_t embedding_width = 0;
};

OptOptions read_options(const ModelConfig& config) {
  const JsonFields fields = config.fields();
  if (!fields.boolean("layer_norm_elementwise_affine").value_or(true)) {
    fields.refuse("'layer_norm_elementwise_affine' false is not supported");
  }
  OptOptions options;
  options.norm_first = fields.boolean("do_layer_norm_before").value_or(true);
  options.final_norm =
      options.norm_first && !fields.boolean("_remove_final_layer_norm").value_or(false);
  options.bias = fields.boolean("enable_bias").value_or(true);
  options.embedding_width =
      fields.integer("word_embed_proj_dim", {1, INT32_MAX}).value_or(config.hidden_size);
  return options;
}

// A residual branch with its norm on the side that the model has it on.
template <typename Branch>
Sym residual_block(const Scope& norm, bool norm_first, Sym x, const Branch& branch) {
  if (norm_first) return x + branch(norm.layer_norm(x, kEps));
  return norm.layer_norm(x + branch(x), kEps);
}

Graph build_opt(const ModelConfig& config, DType dtype) {
  check_dimensions(config);
  const OptOptions options = read_options(config);
  const LinearOptions linear{.bias = options.bias};
  const int32_t width = config.hidden_size;
  ModelTracer tracer(dtype);
  const Scope model = tracer.module("model.decoder");

  Sym x = (model / "embed_tokens")
              .embedding(tracer.token_ids(), config.vocab_size, options.embedding_width);
  if (options.embedding_width != width) x = (model / "project_in").linear(x, width);
  x = x +
      (model / "embed_positions")
          .embedding(tracer.positions(), config.max_position_embeddings, width, kPositionOffset);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const Scope layer = model / "layers" / i;
    const Scope self_attn = layer / "self_attn";
    x = residual_block(layer / "self_attn_layer_norm", options.norm_first, x, [&](Sym in) {
      const Sym out = attend(self_attn, config, i, project_qkv(self_attn, config, in));
      return (self_attn / "out_proj").linear(out, width, linear);
    });
    x = residual_block(layer / "final_layer_norm", options.norm_first, x, [&](Sym in) {
      return plain_mlp(layer / "fc1", layer / "fc2", config, in, linear);
    });
  }
  x = wanted_rows(tracer, x);
  if (options.final_norm) x = (model / "final_layer_norm").layer_norm(x, kEps);
  if (options.embedding_width != width) {
    x = (model / "project_out").linear(x, options.embedding_width);
  }
  return tracer.finish(lm_head(tracer, config, x, {.embedding = "model.decoder.embed_tokens"}));
}

void complete_opt(ModelConfig& config) {
  config.qkv_bias = config.fields().boolean("enable_bias").value_or(true);
}

}  // namespace

std::vector<Family> opt_families() {
  const ConfigDefaults defaults{.max_position_embeddings = 2048,
                                .activation = Activation::kRelu,
                                .tie_word_embeddings = true};
  return {{"opt", defaults, complete_opt, build_opt}};
}

}  // namespace lamina
