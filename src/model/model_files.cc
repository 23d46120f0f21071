#include "model/model_files.h"

#include <fmt/format.h>

#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "model/gguf/gguf_model.h"
#include "model/huggingface/config_json.h"
#include "model/huggingface/hf_model.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> gguf_files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".gguf") files.push_back(entry.path());
  }
  if (error) {
    throw Error(StatusCode::kPermissionDenied,
                fmt::format("cannot list '{}': {}", folder.string(), error.message()));
  }
  return files;
}

ModelConfig read_config_json(const fs::path& path) {
  return parse_config_json(read_text_file(path, kMaxConfigBytes), path.string());
}

}  // namespace

ModelConfig read_model_config(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error) && fs::exists(path / "config.json", error)) {
    return read_config_json(path / "config.json");
  }
  if (path.extension() == ".json" && fs::exists(path, error)) return read_config_json(path);
  return open_model(path)->config();
}

std::unique_ptr<ModelFiles> open_model(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw Error(
        StatusCode::kNotFound,
        fmt::format("no model at '{}': give a Hugging Face folder or a GGUF file", path.string()));
  }
  if (!fs::is_directory(status)) return open_gguf_model(path);
  if (fs::exists(path / "config.json", error)) return open_hf_model(path);
  const std::vector<fs::path> candidates = gguf_files_in(path);
  if (candidates.size() == 1) return open_gguf_model(candidates.front());
  throw Error(StatusCode::kNotFound,
              fmt::format("'{}' has no config.json and {} GGUF files: give a Hugging Face folder "
                          "or a GGUF file",
                          path.string(),
                          candidates.size()));
}

}  // namespace lamina
