#include "model/safetensors/safetensors_file.h"

#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "model/safetensors/safetensors_header.h"
#include "model/weights/printable.h"

namespace lamina {

std::vector<StoredTensor> open_safetensors(const std::filesystem::path& path) {
  const auto file = std::make_shared<const MappedFile>(path);
  const std::string source = path.string();
  std::vector<StoredTensor> tensors;
  for (SafetensorsEntry& entry : parse_safetensors(file->bytes(), source)) {
    if (entry.name.ends_with(".rotary_emb.inv_freq")) continue;
    if (!entry.type) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("{}: tensor {} has dtype {}, which is not supported",
                              source,
                              printable(entry.name),
                              entry.dtype));
    }
    tensors.push_back({.name = std::move(entry.name),
                       .type = *entry.type,
                       .shape = entry.shape,
                       .file = file,
                       .offset = entry.offset,
                       .size_bytes = entry.size_bytes});
  }
  return tensors;
}

}  // namespace lamina
