// Whether a model folder has an optional file. Internal to huggingface/.
#pragma once

#include <filesystem>
#include <system_error>

namespace lamina {

// True also for a link that leads nowhere, as interrupted downloads leave them: opening it then
// names the file, where passing over it would change what the model does. Never throws.
inline bool folder_has(const std::filesystem::path& path) {
  std::error_code ignored;  // what cannot be looked at is for opening to say
  return std::filesystem::symlink_status(path, ignored).type() !=
         std::filesystem::file_type::not_found;
}

}  // namespace lamina
