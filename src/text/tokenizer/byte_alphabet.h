// The printable alphabet of byte-level vocabularies: each of the 256 bytes is written as one
// character, so that a vocabulary file is readable text ("Ġ" is the space). Pure functions.
// Source: the GPT-2 release; bytes that are printable in Latin-1 stand for themselves, the others
// are numbered from U+0100.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace lamina {

// `bytes` written in the alphabet.
std::string to_byte_alphabet(std::string_view bytes);

// The bytes that `text` (valid UTF-8) stands for; nothing if a character is not of the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace lamina
