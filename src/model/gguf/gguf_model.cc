#include "model/gguf/gguf_model.h"

#include <utility>
#include <vector>

#include "model/gguf/gguf_config.h"
#include "model/gguf/gguf_file.h"
#include "model/gguf/gguf_tensors.h"
#include "model/gguf/gguf_vocabulary.h"
#include "model/weights/loaded_weights.h"

namespace lamina {
namespace {

class GgufModel final : public ModelFiles {
 public:
  explicit GgufModel(const std::filesystem::path& path)
      : mapping_(std::make_shared<const MappedFile>(path)),
        file_(parse_gguf(mapping_->bytes(), path.string())),
        config_(read_gguf_config(file_, mapping_->bytes())),
        generation_defaults_(read_gguf_generation_defaults(file_.metadata, config_.vocab_size)),
        chat_template_(file_.metadata.text("tokenizer.chat_template")),
        tensors_(list_gguf_tensors(file_, config_, mapping_)) {}

  [[nodiscard]] const ModelConfig& config() const override { return config_; }
  [[nodiscard]] const GenerationDefaults& generation_defaults() const override {
    return generation_defaults_;
  }
  [[nodiscard]] const std::optional<std::string>& chat_template() const override {
    return chat_template_;
  }
  [[nodiscard]] std::unique_ptr<Tokenizer> load_tokenizer() const override {
    return make_gguf_tokenizer(read_gguf_vocabulary(file_.metadata));
  }
  [[nodiscard]] std::unique_ptr<WeightStore> load_weights(
      const Graph& graph, const LoadOptions& options) const override {
    return load_graph_weights(graph, tensors_, options);
  }

 private:
  std::shared_ptr<const MappedFile> mapping_;
  GgufFile file_;
  ModelConfig config_;
  GenerationDefaults generation_defaults_;
  std::optional<std::string> chat_template_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

std::unique_ptr<ModelFiles> open_gguf_model(const std::filesystem::path& path) {
  return std::make_unique<GgufModel>(path);
}

}  // namespace lamina
