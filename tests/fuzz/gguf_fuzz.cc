// GGUF files: whatever the bytes are, head, configuration, vocabulary and tensor list are read or
// refused with an Error, and every tensor that is read lies in the file and decodes.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "model/gguf/gguf_config.h"
#include "model/gguf/gguf_file.h"
#include "model/gguf/gguf_tensors.h"
#include "model/gguf/gguf_vocabulary.h"
#include "model/weights/decode.h"

namespace {

void read_model(const lamina::GgufFile& file, std::span<const std::byte> bytes) {
  try {
    const lamina::ModelConfig config = lamina::read_gguf_config(file, bytes);
    (void)lamina::read_gguf_generation_defaults(file.metadata, config.vocab_size);
    (void)lamina::list_gguf_tensors(file, config, nullptr);
  } catch (const lamina::Error&) {  // refused: fine
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const lamina::GgufFile file = lamina::parse_gguf(bytes, "fuzz");
    for (const lamina::GgufTensor& tensor : file.tensors) {
      LAMINA_CHECK_LE(tensor.offset, bytes.size());
      LAMINA_CHECK_LE(tensor.size_bytes, bytes.size() - tensor.offset);
      std::vector<float> values(static_cast<size_t>(tensor.shape.num_elements()));
      lamina::decode_to_f32(tensor.type, bytes.data() + tensor.offset, values);
    }
    read_model(file, bytes);
    (void)lamina::read_gguf_vocabulary(file.metadata);
  } catch (const lamina::Error&) {  // refused: fine
  }
  return 0;
}
