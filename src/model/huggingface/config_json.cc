#include "model/huggingface/config_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "model/huggingface/json_fields.h"
#include "model/huggingface/rope_json.h"
#include "model/weights/config_check.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

// What the reference implementation assumes where config.json is silent. 0: derived.
struct Family {
  std::string_view model_type;
  int32_t num_kv_heads;  // 0: as many as attention heads
  int32_t head_dim;      // 0: hidden_size / attention heads
  int32_t max_position_embeddings;
};
constexpr std::array<Family, 4> kFamilies = {{
    {"llama", 0, 0, 2048},
    {"mistral", 8, 0, 131072},
    {"qwen2", 32, 0, 32768},
    {"qwen3", 32, 128, 32768},
}};
constexpr int32_t kDefaultWindow = 4096;  // mistral, qwen2, qwen3
constexpr IntegerRange kWindowRange{1, INT32_MAX};

const Family& find_family(const JsonFields& config) {
  const std::string model_type = config.text("model_type").value_or("");
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return family;
  }
  if (model_type.empty()) config.refuse("'model_type' is missing");
  config.refuse(fmt::format("model_type {} is not supported (llama, mistral, qwen2, qwen3 are)",
                            printable(model_type)));
}

void refuse_unsupported(const JsonFields& config) {
  if (const nlohmann::json* quantization = config.find("quantization_config")) {
    const JsonFields fields(*quantization, config.where() + ": quantization_config");
    config.refuse(fmt::format("quantization_config (quant_method {}) is not supported",
                              printable(fields.text("quant_method").value_or("unknown"))));
  }
  const std::string activation = config.text("hidden_act").value_or("silu");
  if (activation != "silu") {
    config.refuse(fmt::format("hidden_act {} is not supported (silu is)", printable(activation)));
  }
  const nlohmann::json* architectures = config.find("architectures");
  if (architectures == nullptr || !architectures->is_array()) return;
  for (const nlohmann::json& name : *architectures) {
    if (name.is_string() && name.get_ref<const std::string&>().ends_with("ForCausalLM")) return;
  }
  if (architectures->empty()) return;
  config.refuse(fmt::format(
      "architectures {} is not supported (a causal language model is)",
      printable(architectures->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace))));
}

void read_sizes(const JsonFields& config, const Family& family, ModelConfig& model) {
  constexpr IntegerRange kWidth{1, kMaxWidth};
  constexpr IntegerRange kHeads{1, kMaxHeads};
  model.vocab_size = config.required_integer("vocab_size", kWidth);
  model.hidden_size = config.required_integer("hidden_size", kWidth);
  model.intermediate_size = config.required_integer("intermediate_size", kWidth);
  model.num_layers = config.required_integer("num_hidden_layers", {1, kMaxLayers});
  model.num_heads = config.required_integer("num_attention_heads", kHeads);
  // An explicit null means as many as attention heads, whatever the family assumes of silence.
  const bool silent = !config.mentions("num_key_value_heads");
  const int32_t assumed = silent && family.num_kv_heads > 0 ? family.num_kv_heads : model.num_heads;
  model.num_kv_heads = config.integer("num_key_value_heads", kHeads).value_or(assumed);
  const bool has_head_dim = config.has("head_dim");
  const bool assume_head_dim = !config.mentions("head_dim") && family.head_dim > 0;
  if (!has_head_dim && !assume_head_dim && model.hidden_size % model.num_heads != 0) {
    config.refuse(fmt::format("hidden_size {} is not a multiple of {} attention heads",
                              model.hidden_size,
                              model.num_heads));
  }
  model.head_dim =
      config.integer("head_dim", {2, kMaxHeadDim})
          .value_or(assume_head_dim ? family.head_dim : model.hidden_size / model.num_heads);
  model.max_position_embeddings = config.integer("max_position_embeddings", {1, INT32_MAX})
                                      .value_or(family.max_position_embeddings);
  model.rms_norm_eps = static_cast<float>(config.number("rms_norm_eps", {0.0, 1.0}).value_or(1e-6));
}

void read_biases(const JsonFields& config, ModelConfig& model) {
  const bool attention_bias = config.boolean("attention_bias").value_or(false);
  if (model.model_type == "llama" || model.model_type == "qwen3") {
    model.qkv_bias = attention_bias;
    model.output_bias = attention_bias;
  }
  if (model.model_type == "qwen2") model.qkv_bias = true;
  if (model.model_type == "llama") model.mlp_bias = config.boolean("mlp_bias").value_or(false);
}

// The window of those layers that slide, if any may.
std::optional<int32_t> read_window(const JsonFields& config, const std::string& model_type) {
  if (model_type == "llama") return std::nullopt;
  const bool is_qwen = model_type != "mistral";
  if (is_qwen && !config.boolean("use_sliding_window").value_or(false)) return std::nullopt;
  if (!config.mentions("sliding_window")) return kDefaultWindow;
  return config.integer("sliding_window", kWindowRange);
}

// Which layers slide by `layer_types`, one flag a layer.
std::vector<bool> read_layer_types(const JsonFields& config,
                                   const nlohmann::json& types,
                                   int32_t num_layers) {
  if (!types.is_array() || types.size() != static_cast<size_t>(num_layers)) {
    config.refuse(fmt::format("'layer_types' is not a list of {} names", num_layers));
  }
  std::vector<bool> slides;
  for (const nlohmann::json& type : types) {
    const std::string name = type.is_string() ? type.get<std::string>() : "";
    if (name != "full_attention" && name != "sliding_attention") {
      config.refuse(fmt::format("layer type {} is not supported", printable(name)));
    }
    slides.push_back(name == "sliding_attention");
  }
  return slides;
}

// Llama never slides, mistral does in every layer, qwen2 and qwen3 from layer max_window_layers on
// unless `layer_types` says which.
void read_windows(const JsonFields& config, ModelConfig& model) {
  const std::optional<int32_t> window = read_window(config, model.model_type);
  const bool is_qwen = model.model_type == "qwen2" || model.model_type == "qwen3";
  const int32_t first =
      is_qwen ? config.integer("max_window_layers", {0, INT32_MAX}).value_or(28) : 0;
  std::vector<bool> slides;
  slides.reserve(static_cast<size_t>(model.num_layers));
  for (int32_t layer_idx = 0; layer_idx < model.num_layers; ++layer_idx) {
    slides.push_back(window.has_value() && layer_idx >= first);
  }
  if (const nlohmann::json* types = config.find("layer_types")) {
    const std::vector<bool> told = read_layer_types(config, *types, model.num_layers);
    const bool any = std::find(told.begin(), told.end(), true) != told.end();
    if (any && !window) {
      config.refuse("'layer_types' has sliding_attention, but no sliding window is in use");
    }
    // Only the qwen families look at layer_types; elsewhere it may not contradict.
    if (!is_qwen && told != slides) {
      config.refuse(fmt::format("'layer_types' contradicts what {} does", model.model_type));
    }
    slides = told;
  }
  for (const bool slide : slides) model.windows.push_back(slide ? window : std::nullopt);
}

DType read_stored_dtype(const JsonFields& config) {
  const char* key = config.has("dtype") ? "dtype" : "torch_dtype";
  const Result<DType> dtype = parse_dtype(config.text(key).value_or("float32"));
  return dtype.ok() ? *dtype : DType::kF32;  // for information only
}

}  // namespace

ModelConfig parse_config_json(std::string_view text, const std::string& source) {
  const nlohmann::json json = parse_json_object(text, source);
  const JsonFields config(json, source);
  const Family& family = find_family(config);
  refuse_unsupported(config);
  ModelConfig model;
  model.model_type = family.model_type;
  read_sizes(config, family, model);
  read_biases(config, model);
  model.tie_word_embeddings = config.boolean("tie_word_embeddings").value_or(false);
  model.rope = read_rope(config, model.max_position_embeddings);
  read_windows(config, model);
  model.stored_dtype = read_stored_dtype(config);
  check_config(model, source);
  return model;
}

}  // namespace lamina
