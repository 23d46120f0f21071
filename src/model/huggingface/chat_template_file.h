// The chat template of a Hugging Face folder. Internal to huggingface/.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace lamina {

// chat_template.jinja if it exists, else "chat_template" of tokenizer_config.json: a string, or the
// one named "default" of a list. Nothing where there is none. Throws Error kInvalidArgument.
std::optional<std::string> read_chat_template(const std::filesystem::path& model_dir);

}  // namespace lamina
