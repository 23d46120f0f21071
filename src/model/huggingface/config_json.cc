#include "model/huggingface/config_json.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>

#include <nlohmann/json.hpp>

#include "model/builder.h"
#include "model/family.h"
#include "model/huggingface/rope_json.h"
#include "model/json_fields.h"
#include "model/weights/config_check.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

constexpr IntegerRange kWindowRange{1, INT32_MAX};

// Families name the same thing differently; the first name that is there counts.
using Names = std::initializer_list<const char*>;
constexpr Names kHiddenSize = {"hidden_size", "n_embd", "n_embed", "d_model"};
constexpr Names kIntermediateSize = {"intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"};
constexpr Names kNumLayers = {"num_hidden_layers", "n_layer"};
constexpr Names kNumHeads = {"num_attention_heads", "n_head"};
constexpr Names kNumKvHeads = {"num_key_value_heads", "num_kv_heads", "n_head_kv"};
constexpr Names kMaxPositions = {"max_position_embeddings", "n_positions", "seq_length"};
constexpr Names kNormEps = {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"};
constexpr Names kActivation = {
    "hidden_activation", "hidden_act", "activation_function", "activation"};

const char* name_in(const JsonFields& config, Names names) {
  for (const char* name : names) {
    if (config.has(name)) return name;
  }
  return *names.begin();
}

const Family& family_of(const JsonFields& config) {
  const std::string model_type = config.text("model_type").value_or("");
  if (model_type.empty()) config.refuse("'model_type' is missing");
  if (const Family* family = find_family(model_type)) return *family;
  config.refuse(fmt::format("model_type {} is not supported ({} are)",
                            printable(model_type),
                            fmt::join(supported_model_types(), ", ")));
}

void refuse_unsupported(const JsonFields& config, const ConfigDefaults& defaults) {
  if (const nlohmann::json* quantization = config.find("quantization_config")) {
    const JsonFields fields(*quantization, config.where() + ": quantization_config");
    const std::string method = fields.text("quant_method").value_or("unknown");
    if (defaults.quant_method.empty() || method != defaults.quant_method) {
      config.refuse(
          fmt::format("quantization_config (quant_method {}) is not supported", printable(method)));
    }
  }
  for (const char* field : {"add_cross_attention", "use_bidirectional_attention"}) {
    if (config.boolean(field).value_or(false)) {
      config.refuse(fmt::format("'{}' true is not supported", field));
    }
  }
  const nlohmann::json* architectures = config.find("architectures");
  if (architectures == nullptr || !architectures->is_array()) return;
  for (const nlohmann::json& name : *architectures) {
    if (!name.is_string()) continue;
    const auto& text = name.get_ref<const std::string&>();
    if (text.ends_with("ForCausalLM") || text.ends_with("LMHeadModel")) return;
  }
  if (architectures->empty()) return;
  config.refuse(fmt::format(
      "architectures {} is not supported (a causal language model is)",
      printable(architectures->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace))));
}

Activation read_activation(const JsonFields& config, Activation assumed) {
  const char* field = name_in(config, kActivation);
  const std::optional<std::string> name = config.text(field);
  if (!name) return assumed;
  const std::optional<Activation> activation = parse_activation(*name);
  if (activation) return *activation;
  config.refuse(fmt::format("{} {} is not supported", field, printable(*name)));
}

void read_sizes(const JsonFields& config, const ConfigDefaults& defaults, ModelConfig& model) {
  constexpr IntegerRange kWidth{1, kMaxWidth};
  constexpr IntegerRange kHeads{1, kMaxHeads};
  model.vocab_size = config.required_integer("vocab_size", kWidth);
  model.hidden_size = config.required_integer(name_in(config, kHiddenSize), kWidth);
  const char* intermediate_size = name_in(config, kIntermediateSize);
  if (defaults.intermediate_factor > 0 && !config.has(intermediate_size)) {
    model.intermediate_size = model.hidden_size * defaults.intermediate_factor;
  } else {
    model.intermediate_size = config.required_integer(intermediate_size, kWidth);
  }
  model.num_layers = config.required_integer(name_in(config, kNumLayers), {1, kMaxLayers});
  model.num_heads = config.required_integer(name_in(config, kNumHeads), kHeads);
  // An explicit null means as many as attention heads, whatever the family assumes of silence.
  const bool silent = !config.mentions("num_key_value_heads");
  const int32_t assumed =
      silent && defaults.num_kv_heads > 0 ? defaults.num_kv_heads : model.num_heads;
  model.num_kv_heads = config.integer(name_in(config, kNumKvHeads), kHeads).value_or(assumed);
  const bool has_head_dim = config.has("head_dim");
  const bool assume_head_dim = !config.mentions("head_dim") && defaults.head_dim > 0;
  if (!has_head_dim && !assume_head_dim && model.hidden_size % model.num_heads != 0) {
    config.refuse(fmt::format("hidden_size {} is not a multiple of {} attention heads",
                              model.hidden_size,
                              model.num_heads));
  }
  model.head_dim =
      config.integer("head_dim", {2, kMaxHeadDim})
          .value_or(assume_head_dim ? defaults.head_dim : model.hidden_size / model.num_heads);
  model.max_position_embeddings = config.integer(name_in(config, kMaxPositions), {1, INT32_MAX})
                                      .value_or(defaults.max_position_embeddings);
  model.norm_eps = static_cast<float>(
      config.number(name_in(config, kNormEps), {0.0, 1.0}).value_or(defaults.norm_eps));
}

// The window of those layers that slide, if any may.
std::optional<int32_t> read_window(const JsonFields& config, const ConfigDefaults& defaults) {
  if (defaults.window_rule == WindowRule::kNone) return std::nullopt;
  const bool asks_first = defaults.window_rule == WindowRule::kFromLayer;
  if (asks_first && !config.boolean("use_sliding_window").value_or(false)) return std::nullopt;
  if (config.mentions("sliding_window")) return config.integer("sliding_window", kWindowRange);
  return defaults.window > 0 ? std::optional(defaults.window) : std::nullopt;
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

// Which layers slide by the family's rule, given that there is a window.
std::vector<bool> sliding_layers(const JsonFields& config,
                                 const ConfigDefaults& defaults,
                                 int32_t num_layers) {
  const int32_t first = config.integer("max_window_layers", {0, INT32_MAX}).value_or(28);
  const int32_t full_every = config.integer("sliding_window_pattern", {1, INT32_MAX})
                                 .value_or(std::max(1, defaults.full_every));
  std::vector<bool> slides;
  for (int32_t layer_idx = 0; layer_idx < num_layers; ++layer_idx) {
    switch (defaults.window_rule) {
      case WindowRule::kNone:
        slides.push_back(false);
        break;
      case WindowRule::kAll:
        slides.push_back(true);
        break;
      case WindowRule::kNthIsFull:
        slides.push_back((layer_idx + 1) % full_every != 0);
        break;
      case WindowRule::kFromLayer:
        slides.push_back(layer_idx >= first);
        break;
    }
  }
  return slides;
}

void read_windows(const JsonFields& config, const ConfigDefaults& defaults, ModelConfig& model) {
  const std::optional<int32_t> window = read_window(config, defaults);
  std::vector<bool> slides = window ? sliding_layers(config, defaults, model.num_layers)
                                    : std::vector<bool>(static_cast<size_t>(model.num_layers));
  if (const nlohmann::json* types = config.find("layer_types")) {
    const std::vector<bool> told = read_layer_types(config, *types, model.num_layers);
    const bool any = std::find(told.begin(), told.end(), true) != told.end();
    if (any && !window) {
      config.refuse("'layer_types' has sliding_attention, but no sliding window is in use");
    }
    // Only some families look at layer_types; elsewhere it may not contradict.
    const bool is_read = defaults.window_rule == WindowRule::kNthIsFull ||
                         defaults.window_rule == WindowRule::kFromLayer;
    if (!is_read && told != slides) {
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
  ModelConfig model;
  model.json = std::make_shared<const nlohmann::json>(parse_json_object(text, source));
  model.source = source;
  const JsonFields config = model.fields();
  const Family& family = family_of(config);
  refuse_unsupported(config, family.defaults);
  model.model_type = family.model_type;
  read_sizes(config, family.defaults, model);
  model.activation = read_activation(config, family.defaults.activation);
  model.tie_word_embeddings =
      config.boolean("tie_word_embeddings").value_or(family.defaults.tie_word_embeddings);
  read_rope(config, family.defaults, model);
  read_windows(config, family.defaults, model);
  model.stored_dtype = read_stored_dtype(config);
  if (family.complete != nullptr) family.complete(model);
  check_config(model, source);
  return model;
}

}  // namespace lamina
