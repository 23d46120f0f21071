// StoredTensor: where one parameter lies in a model file and how its elements are encoded. The
// readers of safetensors and GGUF make them, loaded_weights.h turns them into a WeightStore. Plain
// values.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace lamina {

// Element encodings. The quantised ones are GGUF's, in blocks of 32 or 256 elements that share
// scales, and MXFP4 as Hugging Face has it: its scales lie in a tensor of their own.
enum class StoredType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kMxfp4,
  kOpaque,  // not read by us: integers, fp8. Refused when a graph names the tensor
};

struct BlockLayout {
  int64_t elements;
  int64_t bytes;
};
BlockLayout block_layout(StoredType type);
// The DType with the same bytes, if there is one.
std::optional<DType> plain_dtype(StoredType type);

// A place in a mapped file.
struct StoredBytes {
  std::shared_ptr<const MappedFile> file;
  size_t offset = 0;

  [[nodiscard]] const std::byte* data() const { return file->bytes().data() + offset; }
};

struct StoredTensor {
  std::string name;  // as Hugging Face spells it
  StoredType type = StoredType::kF32;
  Shape shape;
  // Shared, because views of a WeightStore point into the mapping after the reader is gone.
  std::shared_ptr<const MappedFile> file;
  size_t offset = 0;  // of the first byte in `file`
  size_t size_bytes = 0;
  // 0: rows lie as Hugging Face orders them. Else the number of heads whose rows lie as neighbour
  // pairs (GGUF's llama), to be put back as halves. Each row is whole blocks then.
  int32_t interleaved_heads = 0;
  std::string encoding = {};  // kOpaque only: the file's word for it, "U8"
  StoredBytes scales = {};    // kMxfp4 only: a byte for each block, in the order of the blocks

  [[nodiscard]] const std::byte* data() const { return file->bytes().data() + offset; }
};

// The shape of hostile extents, outermost first: nothing if there are none or more than
// Shape::kMaxRank, if one is 0, or if their product is above 2^48.
std::optional<Shape> checked_shape(std::span<const uint64_t> extents);

// Bytes of a tensor; nothing if rows do not hold whole blocks. `shape` comes from checked_shape(),
// so that nothing can overflow.
std::optional<uint64_t> stored_bytes(StoredType type, const Shape& shape);

}  // namespace lamina
