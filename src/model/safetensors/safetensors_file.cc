#include "model/safetensors/safetensors_file.h"

#include <memory>
#include <utility>

#include "model/safetensors/safetensors_header.h"

namespace lamina {

std::vector<StoredTensor> open_safetensors(const std::filesystem::path& path) {
  const auto file = std::make_shared<const MappedFile>(path);
  std::vector<StoredTensor> tensors;
  for (SafetensorsEntry& entry : parse_safetensors(file->bytes(), path.string())) {
    tensors.push_back({.name = std::move(entry.name),
                       .type = entry.type.value_or(StoredType::kOpaque),
                       .shape = entry.shape,
                       .file = file,
                       .offset = entry.offset,
                       .size_bytes = entry.size_bytes,
                       .encoding = entry.type ? std::string() : std::move(entry.dtype)});
  }
  return tensors;
}

}  // namespace lamina
