// The head of a GGUF file, versions 2 and 3: metadata and the list of tensors. A pure function over
// hostile bytes: every count is bounded by the bytes that are left, every range by the file, the
// head by 128 MiB. What the metadata means is gguf_config.h's and gguf_vocabulary.h's business.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf/gguf_metadata.h"
#include "model/weights/stored_tensor.h"

namespace lamina {

struct GgufTensor {
  std::string_view name;  // as the file spells it, "blk.0.attn_q.weight"
  StoredType type = StoredType::kF32;
  Shape shape;        // outermost first: the reverse of the file's order
  size_t offset = 0;  // from the start of the file
  size_t size_bytes = 0;
};

struct GgufFile {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the order of their bytes
};

// Views in the result point into `bytes`. Throws Error kInvalidArgument with `source` and what is
// wrong: another magic or version, a type that is not supported (by name), a key or tensor that
// stands twice, nested arrays, tensors that overlap or reach past the end.
GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& source);

}  // namespace lamina
