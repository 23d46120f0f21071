// Headers of safetensors files: whatever the bytes are, they are read or refused with an Error, and
// every tensor that is read lies in the file and decodes.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "model/safetensors/safetensors_header.h"
#include "model/weights/decode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  try {
    for (const lamina::SafetensorsEntry& entry : lamina::parse_safetensors(file, "fuzz")) {
      LAMINA_CHECK_LE(entry.offset, file.size());
      LAMINA_CHECK_LE(entry.size_bytes, file.size() - entry.offset);
      if (!entry.type) continue;
      std::vector<float> values(static_cast<size_t>(entry.shape.num_elements()));
      lamina::decode_to_f32(*entry.type, file.data() + entry.offset, values);
    }
  } catch (const lamina::Error&) {  // refused: fine
  }
  return 0;
}
