#include "model/huggingface/hf_model.h"

#include <fmt/format.h>

#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "model/huggingface/chat_template_file.h"
#include "model/huggingface/config_json.h"
#include "model/huggingface/folder_entry.h"
#include "model/huggingface/generation_json.h"
#include "model/huggingface/mxfp4_pairs.h"
#include "model/huggingface/weight_index.h"
#include "model/safetensors/safetensors_file.h"
#include "model/weights/loaded_weights.h"
#include "model/weights/printable.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

GenerationDefaults read_generation_defaults(const fs::path& model_dir,
                                            const std::string& config_text,
                                            int32_t vocab_size) {
  const fs::path config_path = model_dir / "config.json";
  GenerationDefaults base = parse_generation_json(config_text, config_path.string(), vocab_size);
  const fs::path path = model_dir / "generation_config.json";
  if (!folder_has(path)) return base;
  GenerationDefaults defaults =
      parse_generation_json(read_text_file(path, kMaxConfigBytes), path.string(), vocab_size);
  if (defaults.eos_ids.empty()) defaults.eos_ids = base.eos_ids;
  if (!defaults.bos_id) defaults.bos_id = base.bos_id;
  return defaults;
}

// The tensors that the index names, each from its shard. Tensors of a shard that the index does not
// name are left out.
std::vector<StoredTensor> open_shards(const fs::path& model_dir, const fs::path& index_path) {
  const std::string source = index_path.string();
  const auto shard_of = parse_weight_index(read_text_file(index_path, kMaxIndexBytes), source);
  std::map<std::string, std::vector<std::string>> names_in;
  for (const auto& [name, shard] : shard_of) names_in[shard].push_back(name);
  std::vector<StoredTensor> tensors;
  for (const auto& [shard, names] : names_in) {
    std::map<std::string, StoredTensor> stored;
    for (StoredTensor& tensor : open_safetensors(model_dir / shard)) {
      std::string name = tensor.name;
      stored.emplace(std::move(name), std::move(tensor));
    }
    for (const std::string& name : names) {
      const auto found = stored.find(name);
      if (found != stored.end()) {
        tensors.push_back(std::move(found->second));
      } else {
        throw Error(
            StatusCode::kInvalidArgument,
            fmt::format("{}: {} has no tensor {}", source, printable(shard), printable(name)));
      }
    }
  }
  return tensors;
}

std::vector<StoredTensor> open_weights(const fs::path& model_dir) {
  const fs::path single = model_dir / "model.safetensors";
  if (folder_has(single)) return open_safetensors(single);
  const fs::path index = model_dir / "model.safetensors.index.json";
  if (folder_has(index)) return open_shards(model_dir, index);
  throw Error(StatusCode::kNotFound,
              fmt::format("{}: no model.safetensors and no model.safetensors.index.json{}",
                          model_dir.string(),
                          folder_has(model_dir / "pytorch_model.bin")
                              ? " (pytorch_model.bin is not supported)"
                              : ""));
}

class HfModel final : public ModelFiles {
 public:
  explicit HfModel(fs::path model_dir) : model_dir_(std::move(model_dir)) {
    const fs::path config_path = model_dir_ / "config.json";
    const std::string text = read_text_file(config_path, kMaxConfigBytes);
    config_ = parse_config_json(text, config_path.string());
    generation_defaults_ = read_generation_defaults(model_dir_, text, config_.vocab_size);
    chat_template_ = read_chat_template(model_dir_);
    tensors_ = open_weights(model_dir_);
    join_mxfp4_pairs(tensors_);
  }

  [[nodiscard]] const ModelConfig& config() const override { return config_; }
  [[nodiscard]] const GenerationDefaults& generation_defaults() const override {
    return generation_defaults_;
  }
  [[nodiscard]] const std::optional<std::string>& chat_template() const override {
    return chat_template_;
  }
  [[nodiscard]] std::unique_ptr<Tokenizer> load_tokenizer() const override {
    return lamina::load_tokenizer(model_dir_);
  }
  [[nodiscard]] std::unique_ptr<WeightStore> load_weights(
      const Graph& graph, const LoadOptions& options) const override {
    return load_graph_weights(graph, tensors_, options);
  }

 private:
  fs::path model_dir_;
  ModelConfig config_;
  GenerationDefaults generation_defaults_;
  std::optional<std::string> chat_template_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

std::unique_ptr<ModelFiles> open_hf_model(const std::filesystem::path& model_dir) {
  return std::make_unique<HfModel>(model_dir);
}

}  // namespace lamina
