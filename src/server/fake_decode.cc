// Tokenizer::decode for a tree without the text room.
#include "text/tokenizer.h"

namespace lamina {

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  for (const int32_t id : ids) {
    if (!skip_special_tokens || !is_special(id)) text += token_bytes(id);
  }
  return text;
}

}  // namespace lamina
