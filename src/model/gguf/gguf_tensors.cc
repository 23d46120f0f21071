#include "model/gguf/gguf_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model/weights/printable.h"

namespace lamina {
namespace {

struct NamePair {
  std::string_view gguf;
  std::string_view hugging_face;
};

constexpr NamePair kModelNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};

// Within a layer, before ".weight" or ".bias".
constexpr NamePair kLayerNames[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

// "blk.3.attn_q.weight" in its parts.
struct LayerTensor {
  int32_t layer_idx = 0;
  std::string_view part;
  std::string_view suffix;  // ".weight" or ".bias"
};

std::optional<int32_t> parse_layer_number(std::string_view text) {
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c >= '0' && c <= '9';
  });
  if (!digits || text.size() > 4 || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  int32_t number = 0;
  for (const char c : text) number = 10 * number + (c - '0');
  return number;
}

std::optional<LayerTensor> split_layer_name(std::string_view gguf_name) {
  constexpr std::string_view kPrefix = "blk.";
  const size_t number_end = gguf_name.find('.', kPrefix.size());
  const size_t suffix_begin = gguf_name.rfind('.');
  if (!gguf_name.starts_with(kPrefix) || number_end == std::string_view::npos ||
      suffix_begin <= number_end) {
    return std::nullopt;
  }
  const auto layer_idx =
      parse_layer_number(gguf_name.substr(kPrefix.size(), number_end - kPrefix.size()));
  const std::string_view suffix = gguf_name.substr(suffix_begin);
  if (!layer_idx || (suffix != ".weight" && suffix != ".bias")) return std::nullopt;
  return LayerTensor{
      *layer_idx, gguf_name.substr(number_end + 1, suffix_begin - number_end - 1), suffix};
}

// Whether the model that `config` describes uses the tensor: what it would ignore changes what it
// says.
bool belongs(std::string_view gguf_name, const ModelConfig& config) {
  const std::optional<LayerTensor> tensor = split_layer_name(gguf_name);
  if (!tensor) return true;
  if (tensor->layer_idx >= config.num_layers) return false;
  if (tensor->part.ends_with("_norm")) {
    const bool of_heads = tensor->part == "attn_q_norm" || tensor->part == "attn_k_norm";
    return tensor->suffix == ".weight" && (!of_heads || config.model_type == "qwen3");
  }
  if (tensor->suffix == ".weight") return true;
  if (tensor->part.starts_with("ffn_")) return config.mlp_bias;
  return tensor->part == "attn_output" ? config.output_bias : config.qkv_bias;
}

// Heads whose rotary halves the writer interleaved: those of q and k, in the llama architecture.
int32_t interleaved_heads(const GgufTensor& tensor, const ModelConfig& config) {
  const bool is_llama = config.model_type == "llama" || config.model_type == "mistral";
  if (!is_llama) return 0;
  if (tensor.name.find(".attn_q.") != std::string_view::npos) return config.num_heads;
  if (tensor.name.find(".attn_k.") != std::string_view::npos) return config.num_kv_heads;
  return 0;
}

}  // namespace

std::optional<std::string> hugging_face_name(std::string_view gguf_name) {
  for (const NamePair& pair : kModelNames) {
    if (gguf_name == pair.gguf) return std::string(pair.hugging_face);
  }
  const std::optional<LayerTensor> tensor = split_layer_name(gguf_name);
  if (!tensor) return std::nullopt;
  for (const NamePair& pair : kLayerNames) {
    if (tensor->part == pair.gguf) {
      return fmt::format(
          "model.layers.{}.{}{}", tensor->layer_idx, pair.hugging_face, tensor->suffix);
    }
  }
  return std::nullopt;
}

std::vector<StoredTensor> list_gguf_tensors(const GgufFile& file,
                                            const ModelConfig& config,
                                            const std::shared_ptr<const MappedFile>& mapping) {
  std::vector<StoredTensor> tensors;
  for (const GgufTensor& tensor : file.tensors) {
    if (tensor.name == "rope_freqs.weight") continue;
    std::optional<std::string> name = hugging_face_name(tensor.name);
    if (!name || !belongs(tensor.name, config)) {
      file.metadata.refuse(fmt::format(
          "tensor {} has no place in a {} model", printable(tensor.name), config.model_type));
    }
    const int32_t heads = interleaved_heads(tensor, config);
    if (heads > 0 && tensor.shape.rank() == 1 && !plain_dtype(tensor.type)) {
      file.metadata.refuse(
          fmt::format("tensor {} has shape {}, whose rows are no whole blocks to put in order",
                      printable(tensor.name),
                      tensor.shape.to_string()));
    }
    if (heads > 0 && tensor.shape[0] != int64_t{heads} * config.head_dim) {
      file.metadata.refuse(fmt::format("tensor {} has shape {}, but {} heads of {} rows each",
                                       printable(tensor.name),
                                       tensor.shape.to_string(),
                                       heads,
                                       config.head_dim));
    }
    tensors.push_back({.name = std::move(*name),
                       .type = tensor.type,
                       .shape = tensor.shape,
                       .file = mapping,
                       .offset = tensor.offset,
                       .size_bytes = tensor.size_bytes,
                       .interleaved_heads = heads});
  }
  return tensors;
}

}  // namespace lamina
