#include "model/gguf/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/gguf/gguf_rope.h"
#include "model/weights/config_check.h"
#include "model/weights/decode.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

std::string read_architecture(const GgufMetadata& metadata) {
  const std::string architecture = metadata.text("general.architecture").value_or("");
  if (architecture == "llama" || architecture == "qwen2" || architecture == "qwen3") {
    return architecture;
  }
  metadata.refuse(fmt::format("architecture {} is not supported (llama, qwen2, qwen3 are)",
                              printable(architecture)));
}

void refuse_unsupported(const GgufMetadata& metadata, const std::string& architecture) {
  if (metadata.integer("split.count", 0, INT32_MAX).value_or(1) > 1) {
    metadata.refuse("is one part of a split model, which is not supported: merge the parts");
  }
  if (metadata.integer(architecture + ".expert_count", 0, INT32_MAX).value_or(0) > 0) {
    metadata.refuse("mixture of experts is not supported");
  }
  const std::string causal = architecture + ".attention.causal";
  if (!metadata.boolean(causal).value_or(true)) {
    metadata.refuse(fmt::format("'{}' is false, which is not supported", causal));
  }
  for (const char* key : {".attention.clamp_kqv",
                          ".attention.max_alibi_bias",
                          ".attention.scale",
                          ".logit_scale",
                          ".residual_scale",
                          ".embedding_scale"}) {
    if (metadata.has(architecture + key)) {
      metadata.refuse(fmt::format("'{}{}' is not supported", architecture, key));
    }
  }
}

const GgufTensor* find_tensor(const GgufFile& file, std::string_view name) {
  const auto found = std::find_if(file.tensors.begin(),
                                  file.tensors.end(),
                                  [&](const GgufTensor& tensor) { return tensor.name == name; });
  return found == file.tensors.end() ? nullptr : &*found;
}

void read_sizes(const GgufFile& file, const std::string& architecture, ModelConfig& config) {
  const GgufMetadata& metadata = file.metadata;
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", architecture, name); };
  config.num_layers = metadata.required_integer(key("block_count"), 1, kMaxLayers);
  config.hidden_size = metadata.required_integer(key("embedding_length"), 1, kMaxWidth);
  config.intermediate_size = metadata.required_integer(key("feed_forward_length"), 1, kMaxWidth);
  config.max_position_embeddings = metadata.required_integer(key("context_length"), 1, INT32_MAX);
  config.num_heads = metadata.required_integer(key("attention.head_count"), 1, kMaxHeads);
  config.num_kv_heads =
      metadata.integer(key("attention.head_count_kv"), 1, kMaxHeads).value_or(config.num_heads);
  const auto head_dim = metadata.integer(key("attention.key_length"), 2, kMaxHeadDim);
  if (!head_dim && config.hidden_size % config.num_heads != 0) {
    metadata.refuse(fmt::format(
        "embedding length {} is not a multiple of {} heads", config.hidden_size, config.num_heads));
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.num_heads);
  const auto value_dim = metadata.integer(key("attention.value_length"), 2, kMaxHeadDim);
  if (value_dim && *value_dim != config.head_dim) {
    metadata.refuse(fmt::format(
        "keys of {} beside values of {} elements are not supported", config.head_dim, *value_dim));
  }
  const auto eps = metadata.number(key("attention.layer_norm_rms_epsilon"), 0.0, 1.0);
  if (!eps) {
    metadata.refuse(fmt::format("'{}' is missing", key("attention.layer_norm_rms_epsilon")));
  }
  config.norm_eps = static_cast<float>(*eps);
}

// The vocabulary's size is the embedding's: the metadata may round it differently.
void read_vocab_size(const GgufFile& file, ModelConfig& config) {
  const GgufTensor* embedding = find_tensor(file, "token_embd.weight");
  if (embedding == nullptr) file.metadata.refuse("tensor 'token_embd.weight' is missing");
  if (embedding->shape.rank() != 2 || embedding->shape[0] > kMaxWidth) {
    file.metadata.refuse(
        fmt::format("tensor 'token_embd.weight' has shape {}", embedding->shape.to_string()));
  }
  config.vocab_size = static_cast<int32_t>(embedding->shape[0]);
  config.stored_dtype = plain_dtype(embedding->type).value_or(DType::kBF16);
}

// GGUF has no keys for these: what is stored says it.
void read_biases(const GgufFile& file, ModelConfig& config) {
  config.qkv_bias =
      config.model_type == "qwen2" || find_tensor(file, "blk.0.attn_q.bias") != nullptr;
  config.output_bias = find_tensor(file, "blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = find_tensor(file, "blk.0.ffn_gate.bias") != nullptr;
  config.tie_word_embeddings = find_tensor(file, "output.weight") == nullptr;
}

// Only mistral, which comes as llama, has a window in these architectures, and in every layer.
void read_windows(const GgufMetadata& metadata,
                  const std::string& architecture,
                  ModelConfig& config) {
  const std::string key = architecture + ".attention.sliding_window";
  const int32_t window = metadata.integer(key, 0, INT32_MAX).value_or(0);
  if (window > 0 && architecture != "llama") {
    metadata.refuse(fmt::format("'{}' is not supported", key));
  }
  if (window > 0) config.model_type = "mistral";
  config.windows.assign(static_cast<size_t>(config.num_layers),
                        window > 0 ? std::optional<int32_t>(window) : std::nullopt);
}

std::vector<float> read_frequency_divisors(const GgufFile& file, std::span<const std::byte> bytes) {
  const GgufTensor* tensor = find_tensor(file, "rope_freqs.weight");
  if (tensor == nullptr) return {};
  if (tensor->type != StoredType::kF32 || tensor->shape.rank() != 1 ||
      tensor->shape[0] > kMaxHeadDim) {
    file.metadata.refuse(
        fmt::format("tensor 'rope_freqs.weight' has shape {}", tensor->shape.to_string()));
  }
  std::vector<float> divisors(static_cast<size_t>(tensor->shape[0]));
  decode_to_f32(tensor->type, bytes.data() + tensor->offset, divisors);
  return divisors;
}

std::optional<int32_t> read_token(const GgufMetadata& metadata,
                                  std::string_view key,
                                  int32_t vocab_size) {
  // 2^32 - 1 and -1 stand for "none" in some files.
  const auto id = metadata.number(key, -1.0, 4294967295.0);
  if (!id || *id < 0 || *id >= vocab_size) return std::nullopt;
  return static_cast<int32_t>(*id);
}

std::optional<float> read_float(const GgufMetadata& metadata,
                                std::string_view key,
                                double low,
                                double high) {
  const auto value = metadata.number(key, low, high);
  if (!value) return std::nullopt;
  return static_cast<float>(*value);
}

}  // namespace

ModelConfig read_gguf_config(const GgufFile& file, std::span<const std::byte> bytes) {
  const std::string architecture = read_architecture(file.metadata);
  refuse_unsupported(file.metadata, architecture);
  ModelConfig config;
  config.model_type = architecture;
  read_sizes(file, architecture, config);
  read_vocab_size(file, config);
  read_biases(file, config);
  read_windows(file.metadata, architecture, config);
  config.rope = read_gguf_rope(
      file.metadata, architecture, config.head_dim, read_frequency_divisors(file, bytes));
  check_config(config, file.metadata.source());
  return config;
}

GenerationDefaults read_gguf_generation_defaults(const GgufMetadata& metadata, int32_t vocab_size) {
  GenerationDefaults defaults;
  for (const char* key : {"tokenizer.ggml.eos_token_id",
                          "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"}) {
    const auto id = read_token(metadata, key, vocab_size);
    const auto& ids = defaults.eos_ids;
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) defaults.eos_ids.push_back(*id);
  }
  defaults.bos_id = read_token(metadata, "tokenizer.ggml.bos_token_id", vocab_size);
  defaults.temperature = read_float(metadata, "general.sampling.temp", 0.0, 1e6);
  defaults.top_p = read_float(metadata, "general.sampling.top_p", 1e-6, 1.0);
  defaults.min_p = read_float(metadata, "general.sampling.min_p", 0.0, 1.0);
  defaults.repetition_penalty = read_float(metadata, "general.sampling.penalty_repeat", 1e-6, 1e6);
  defaults.top_k = metadata.integer("general.sampling.top_k", -1, INT32_MAX);
  return defaults;
}

}  // namespace lamina
