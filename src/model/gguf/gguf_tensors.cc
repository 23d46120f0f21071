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

bool is_layer_number(std::string_view text) {
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c >= '0' && c <= '9';
  });
  return digits && text.size() <= 4 && (text.size() == 1 || text.front() != '0');
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
  constexpr std::string_view kPrefix = "blk.";
  const size_t number_end = gguf_name.find('.', kPrefix.size());
  const size_t suffix_begin = gguf_name.rfind('.');
  if (!gguf_name.starts_with(kPrefix) || number_end == std::string_view::npos ||
      suffix_begin <= number_end) {
    return std::nullopt;
  }
  const std::string_view number = gguf_name.substr(kPrefix.size(), number_end - kPrefix.size());
  const std::string_view part = gguf_name.substr(number_end + 1, suffix_begin - number_end - 1);
  const std::string_view suffix = gguf_name.substr(suffix_begin);
  if (!is_layer_number(number) || (suffix != ".weight" && suffix != ".bias")) return std::nullopt;
  for (const NamePair& pair : kLayerNames) {
    if (part == pair.gguf) {
      return fmt::format("model.layers.{}.{}{}", number, pair.hugging_face, suffix);
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
    if (!name) {
      file.metadata.refuse(fmt::format(
          "tensor {} has no place in a {} model", printable(tensor.name), config.model_type));
    }
    const int32_t heads = interleaved_heads(tensor, config);
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
