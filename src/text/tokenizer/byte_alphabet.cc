#include "text/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "text/tokenizer/utf8.h"

namespace lamina {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr size_t kAlphabetEnd = 0x144;  // 68 bytes are not printable

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int16_t, kAlphabetEnd> byte{};  // -1: not of the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = -1;
  char32_t substitute = kFirstSubstitute;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
    const char32_t character = printable ? b : substitute++;
    alphabet.character[b] = character;
    alphabet.byte[character] = static_cast<int16_t>(b);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    append_utf8(text, kAlphabet.character[static_cast<unsigned char>(byte)]);
  }
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += utf8_size(text[i])) {
    const char32_t character = decode_utf8(text, i);
    if (character >= kAlphabetEnd || kAlphabet.byte[character] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte[character]));
  }
  return bytes;
}

}  // namespace lamina
