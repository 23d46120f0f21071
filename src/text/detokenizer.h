// Detokenizer: token ids to text, one at a time, never half a UTF-8 character. One per generated
// choice. Confined to one thread; the tokenizer outlives it.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace lamina {

class Detokenizer {
 public:
  // `continues_text`: the ids follow other text, so a leading space is kept (completions); else it
  // is stripped where the tokenizer says so.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens, bool continues_text);

  // Text that is now certain: whole characters only. Bytes that can never become UTF-8 come out as
  // U+FFFD.
  std::string add(int32_t id);
  // What is left at the end, incomplete bytes as U+FFFD.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  bool strip_space_;
  std::string pending_;  // an incomplete character
};

}  // namespace lamina
