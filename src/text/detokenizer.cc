#include "text/detokenizer.h"

#include <string_view>

#include "text/tokenizer/utf8.h"

namespace lamina {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens, bool continues_text)
    : tokenizer_(&tokenizer),
      skip_special_tokens_(skip_special_tokens),
      strip_space_(tokenizer.strips_leading_space() && !continues_text) {}

std::string Detokenizer::add(int32_t id) {
  if (skip_special_tokens_ && tokenizer_->is_special(id)) return {};
  std::string_view bytes = tokenizer_->token_bytes(id);
  if (bytes.empty()) return {};
  if (strip_space_) {
    if (bytes.front() == ' ') bytes.remove_prefix(1);
    strip_space_ = false;
  }
  pending_ += bytes;
  std::string text;
  drain_utf8(pending_, text);
  return text;
}

std::string Detokenizer::finish() {
  // What is pending is the start of one character: one maximal subpart, one U+FFFD.
  const bool incomplete = !pending_.empty();
  pending_.clear();
  return incomplete ? std::string(kReplacementCharacter) : std::string();
}

}  // namespace lamina
