#include "model/huggingface/chat_template_file.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/huggingface/folder_entry.h"
#include "model/json_fields.h"

namespace lamina {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
constexpr size_t kMaxTokenizerConfigBytes = size_t{16} << 20;

// [{"name": "default", "template": "..."}, {"name": "tool_use", ...}]
std::optional<std::string> find_default(const nlohmann::json& list, const std::string& source) {
  for (const nlohmann::json& item : list) {
    const JsonFields named(item, source + ": chat_template");
    if (named.text("name") == "default") return named.text("template");
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> read_chat_template(const std::filesystem::path& model_dir) {
  const std::filesystem::path jinja = model_dir / "chat_template.jinja";
  if (folder_has(jinja)) return read_text_file(jinja, kMaxTemplateBytes);
  const std::filesystem::path path = model_dir / "tokenizer_config.json";
  if (!folder_has(path)) return std::nullopt;
  const std::string text = read_text_file(path, kMaxTokenizerConfigBytes);
  const nlohmann::json json = parse_json_object(text, path.string());
  const JsonFields fields(json, path.string());
  const nlohmann::json* value = fields.find("chat_template");
  if (value != nullptr && value->is_array()) return find_default(*value, path.string());
  return fields.text("chat_template");
}

}  // namespace lamina
