// A hostile tokenizer.model: it loads or is refused by an Error; what loads encodes and decodes.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "text/tokenizer/sentencepiece_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = lamina::parse_sentencepiece_model(bytes, "");
    for (const std::string_view text : {"", " the  b1\n<s>ab", "\u4E2D e\u0301 \U0001F642"}) {
      const auto ids = tokenizer->encode(text, {});
      if (ids.ok()) static_cast<void>(tokenizer->decode(*ids, true));
    }
  } catch (const lamina::Error&) {  // refused
  }
  return 0;
}
