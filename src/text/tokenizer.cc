#include "text/tokenizer.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "text/detokenizer.h"
#include "text/tokenizer/sentencepiece_model.h"
#include "text/tokenizer/tokenizer_json.h"

namespace lamina {
namespace {

constexpr size_t kMaxFileBytes = size_t{128} << 20;

// tokenizer_config.json is optional.
std::string read_if_there(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_text_file(path, kMaxFileBytes) : std::string();
}

// Whatever goes wrong with a file is said with its name.
template <typename Load>
std::unique_ptr<Tokenizer> naming(const std::filesystem::path& path, const Load& load) {
  try {
    return load();
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", path.string(), e.what()));
  }
}

}  // namespace

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens, /*continues_text=*/false);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.add(id);
  return text += detokenizer.finish();
}

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& tokenizer_json,
                                               const std::filesystem::path& tokenizer_config_json) {
  const std::string json = read_text_file(tokenizer_json, kMaxFileBytes);
  const std::string config = read_if_there(tokenizer_config_json);
  return naming(tokenizer_json, [&] { return parse_tokenizer_json(json, config); });
}

std::unique_ptr<Tokenizer> load_sentencepiece_model(const std::filesystem::path& tokenizer_model) {
  const std::string bytes = read_text_file(tokenizer_model, kMaxFileBytes);
  const std::string config = read_if_there(tokenizer_model.parent_path() / "tokenizer_config.json");
  return naming(tokenizer_model, [&] { return parse_sentencepiece_model(bytes, config); });
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir) {
  const std::filesystem::path json = model_dir / "tokenizer.json";
  if (std::filesystem::exists(json)) {
    return load_tokenizer_json(json, model_dir / "tokenizer_config.json");
  }
  const std::filesystem::path model = model_dir / "tokenizer.model";
  if (std::filesystem::exists(model)) return load_sentencepiece_model(model);
  throw Error(StatusCode::kNotFound,
              fmt::format("{}: neither tokenizer.json nor tokenizer.model", model_dir.string()));
}

}  // namespace lamina
