// ModelConfig: what a model is, read from config.json or GGUF metadata into one form. Whatever
// cannot be honoured exactly is refused by name when it is read. Immutable after loading.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/json_fields.h"
#include "model/sampling_params.h"
#include "tensor/dtype.h"
#include "tensor/op_attrs.h"

namespace lamina {

enum class RopeType : uint8_t { kDefault, kLinear, kDynamic, kYarn, kLlama3 };

// Rotary embedding and its scaling; names as in Hugging Face's rope_parameters.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  int32_t original_max_position_embeddings =
      0;                                   // llama3, yarn, dynamic; 0: max_position_embeddings
  double beta_fast = 32.0;                 // yarn
  double beta_slow = 1.0;                  // yarn
  std::optional<double> attention_factor;  // yarn
  std::optional<double> mscale, mscale_all_dim;  // yarn
  bool truncate = true;                          // yarn
  double partial_rotary_factor = 1.0;
};

struct ModelConfig {
  std::string model_type;
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t max_position_embeddings = 0;
  float norm_eps = 1e-6F;
  Activation activation = Activation::kSilu;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;     // llama attention_bias; always for qwen2
  bool output_bias = false;  // of the attention's output projection
  bool mlp_bias = false;
  RopeConfig rope;
  std::optional<RopeConfig> sliding_rope;       // where layers with a window have their own
  std::vector<std::optional<int32_t>> windows;  // sliding window of each layer, num_layers entries
  DType stored_dtype = DType::kBF16;            // what the file says; for information

  // What only the model's family reads: the whole of config.json. Empty where there is none (GGUF).
  std::shared_ptr<const nlohmann::json> json;
  std::string source = "model";  // where it came from, for messages
  [[nodiscard]] JsonFields fields() const;
};

// Defaults of the model's own generation_config.json (or GGUF metadata).
struct GenerationDefaults {
  std::vector<int32_t> eos_ids;
  std::optional<int32_t> bos_id;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
};

}  // namespace lamina
