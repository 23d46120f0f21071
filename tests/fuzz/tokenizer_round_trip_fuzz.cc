// Any text comes back from its ids, whole or one id at a time; any ids give valid UTF-8. The first
// byte says how the rest is used. The vocabulary is small: all bytes, a few merges, special tokens.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer/bpe_model.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/utf8.h"

namespace {

using lamina::Tokenizer;

lamina::GgufVocabulary small_vocabulary(const char* model) {
  lamina::GgufVocabulary vocabulary;
  vocabulary.model = model;
  vocabulary.pre = "smollm";
  const auto put = [&](const std::string& text, int32_t type) {
    vocabulary.tokens.push_back(text);
    vocabulary.token_types.push_back(type);
    vocabulary.scores.push_back(-static_cast<float>(vocabulary.tokens.size()));
  };
  const bool byte_level = vocabulary.model == "gpt2";
  put("<s>", 3);
  put("</s>", 3);
  put("<keep>", 4);
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    put(byte_level ? lamina::to_byte_alphabet({&byte, 1})
                   : lamina::byte_token(static_cast<unsigned char>(b)),
        byte_level ? 1 : 6);
  }
  const char* const space = byte_level ? "\u0120" : "\u2581";
  for (const std::string& text : {std::string(space), std::string("a"), std::string("e")}) {
    if (!byte_level) put(text, 1);
  }
  for (const auto& [left, right] : {std::pair<std::string, std::string>{space, "a"},
                                    {"a", "e"},
                                    {std::string(space) + "a", "e"},
                                    {space, space}}) {
    put(left + right, 1);
    vocabulary.merges.push_back(left + " " + right);
  }
  return vocabulary;
}

std::string decode_in_steps(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  lamina::Detokenizer detokenizer(tokenizer, false, false);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = detokenizer.add(id);
    LAMINA_CHECK(lamina::is_valid_utf8(part));
    text += part;
  }
  return text + detokenizer.finish();
}

void check_text(const Tokenizer& tokenizer, std::string_view text, bool special) {
  const auto ids = tokenizer.encode(text, {.add_special_tokens = false, .parse_special = special});
  LAMINA_CHECK_EQ(ids.ok(), lamina::is_valid_utf8(text));
  if (!ids.ok()) return;
  const std::string decoded = tokenizer.decode(*ids, false);
  LAMINA_CHECK_EQ(decoded, decode_in_steps(tokenizer, *ids));
  // SentencePiece style writes spaces as U+2581 and puts one before each stretch of text.
  const bool exact =
      !tokenizer.strips_leading_space() ||
      (text.find("\u2581") == std::string_view::npos && text.find('<') == std::string_view::npos);
  if (exact) LAMINA_CHECK_EQ(decoded, text);
}

void check_ids(const Tokenizer& tokenizer, std::string_view bytes) {
  std::vector<int32_t> ids(bytes.size() / 2);
  for (size_t i = 0; i < ids.size(); ++i) {
    int16_t id = 0;
    std::memcpy(&id, bytes.data() + 2 * i, 2);
    ids[i] = id % 300;
  }
  const std::string decoded = tokenizer.decode(ids, false);
  LAMINA_CHECK(lamina::is_valid_utf8(decoded));
  LAMINA_CHECK_EQ(decoded, decode_in_steps(tokenizer, ids));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto kByteLevel = lamina::make_gguf_tokenizer(small_vocabulary("gpt2"));
  static const auto kByteFallback = lamina::make_gguf_tokenizer(small_vocabulary("llama"));
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Tokenizer& tokenizer = (data[0] & 1) != 0 ? *kByteLevel : *kByteFallback;
  if ((data[0] & 2) != 0) {
    check_ids(tokenizer, rest);
  } else {
    check_text(tokenizer, rest, (data[0] & 4) != 0);
  }
  return 0;
}
