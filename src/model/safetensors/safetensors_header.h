// The header of a safetensors file: eight bytes of length, then JSON that names each tensor, its
// dtype, shape and byte range. Read strictly, as hostile input: pure functions over the file's
// bytes. safetensors_file.h opens files with it.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/weights/stored_tensor.h"

namespace lamina {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;               // as the file spells it, "BF16"
  std::optional<StoredType> type;  // nothing: integers, fp8 and others that are no weights of ours
  Shape shape;
  size_t offset = 0;  // from the start of the file
  size_t size_bytes = 0;
};

// Entries in the order of their bytes. Throws Error kInvalidArgument with `source`, tensor and
// reason unless the header is well-formed and at most 32 MiB, names are unique, and the tensors
// cover the rest of the file without gap or overlap, each as large as its shape says.
std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file,
                                                std::string_view source);

}  // namespace lamina
