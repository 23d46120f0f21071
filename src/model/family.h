// Family: everything Lamina knows of one model type, in one file of families/: what config.json
// leaves unsaid, and the forward pass. To add a family, add a file there that defines
// `<file name>_families()`; the build finds it (docs/adding-a-family.md).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "model/model_config.h"

namespace lamina {

// Which layers have a sliding window where `layer_types` does not say.
enum class WindowRule : uint8_t {
  kNone,       // none may
  kAll,        // all, if there is a window
  kNthIsFull,  // all but every n-th, n being `full_every`
  kFromLayer,  // from layer max_window_layers on, if use_sliding_window
};

// What the reference implementation assumes where config.json is silent.
struct ConfigDefaults {
  int32_t num_kv_heads = 0;  // 0: as many as attention heads
  int32_t head_dim = 0;      // 0: hidden_size / attention heads
  int32_t max_position_embeddings = 2048;
  int32_t intermediate_factor = 0;  // intermediate_size = factor * hidden_size; 0: must be said
  float norm_eps = 1e-6F;
  Activation activation = Activation::kSilu;
  bool tie_word_embeddings = false;
  double rope_theta = 10000.0;
  double partial_rotary_factor = 1.0;
  bool own_sliding_rope = false;  // layers with a window may have rotary parameters of their own
  WindowRule window_rule = WindowRule::kNone;
  int32_t window = 0;  // 0: without a window unless said
  int32_t full_every = 0;
  std::string_view quant_method = {};  // of quantization_config, if the builder honours one
};

struct Family {
  std::string_view model_type;
  ConfigDefaults defaults;
  // Completes what was read by the common rules from the family's own fields, and refuses what it
  // cannot honour. Throws Error kInvalidArgument. May be null.
  void (*complete)(ModelConfig& config) = nullptr;
  // As build_graph() of builder.h.
  Graph (*build)(const ModelConfig& config, DType dtype) = nullptr;
};

// All families, sorted by model type.
std::span<const Family> all_families();
// Null where there is none.
const Family* find_family(std::string_view model_type);

}  // namespace lamina
