// UTF-8, read strictly (Unicode table 3-7: no surrogates, no overlong forms). Used by all of text/
// and nothing else. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lamina {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8State : uint8_t {
  kComplete,    // the first `size` bytes are a character
  kIncomplete,  // all bytes are the start of a character whose rest is missing
  kInvalid,     // the first `size` bytes can never become a character (maximal subpart)
};

struct Utf8Step {
  Utf8State state;
  uint8_t size;
};

// Looks at the start of `bytes`, which is not empty.
Utf8Step next_utf8(std::string_view bytes);

bool is_valid_utf8(std::string_view text);

// Both for valid UTF-8 only; `lead` and `position` are at the start of a character.
size_t utf8_size(char lead);
char32_t decode_utf8(std::string_view text, size_t position);

void append_utf8(std::string& text, char32_t code_point);

// Moves what is certain from `pending` to `text`: whole characters, and U+FFFD for what can never
// become one. At most three bytes stay pending.
void drain_utf8(std::string& pending, std::string& text);

}  // namespace lamina
