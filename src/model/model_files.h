// Opening a model: a Hugging Face folder or a GGUF file, told apart by what is there. Used by app/
// and tests.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "graph/graph.h"
#include "model/model_config.h"
#include "model/weight_store.h"
#include "text/tokenizer.h"

namespace lamina {

// Called with bytes of weights done and bytes in all, from the loading thread.
using LoadProgress = std::function<void(uint64_t, uint64_t)>;

struct LoadOptions {
  LoadProgress progress = nullptr;
  // Weights of products and embeddings that the file holds quantised stay so (find_packed() of
  // the store has them); otherwise every weight is decoded to the graph's dtype.
  bool keeps_quantized = false;
  // Other weights of products are packed as kPairs where they are of bf16 and have whole blocks of
  // columns.
  bool packs_pairs = false;
};

class ModelFiles {
 public:
  virtual ~ModelFiles() = default;
  [[nodiscard]] virtual const ModelConfig& config() const = 0;
  [[nodiscard]] virtual const GenerationDefaults& generation_defaults() const = 0;
  // The model's own chat template ("chat_template" of tokenizer_config.json, chat_template.jinja,
  // GGUF metadata).
  [[nodiscard]] virtual const std::optional<std::string>& chat_template() const = 0;
  // Throws Error as text/tokenizer.h says.
  [[nodiscard]] virtual std::unique_ptr<Tokenizer> load_tokenizer() const = 0;
  // Every weight that `graph` names, and nothing else. Throws Error kInvalidArgument, naming the
  // stored tensor, where the files lack one or have it with another shape than the graph says;
  // kResourceExhausted.
  [[nodiscard]] virtual std::unique_ptr<WeightStore> load_weights(
      const Graph& graph, const LoadOptions& options) const = 0;
};

// What a model is, without its weights: `path` is a model as for open_model(), whose weights need
// not be there, or a config.json under any name. Throws as open_model().
ModelConfig read_model_config(const std::filesystem::path& path);

// Throws Error, one line: kNotFound; kInvalidArgument for a file that lies or a model that is not
// supported.
std::unique_ptr<ModelFiles> open_model(const std::filesystem::path& path);

}  // namespace lamina
