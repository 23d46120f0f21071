// Text as Python sees it, a row of code points, on UTF-8 that is known to be valid: counting,
// indexing, case, white space, search. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lamina::jinja {

[[nodiscard]] bool is_valid_utf8(std::string_view bytes);
[[nodiscard]] size_t count_chars(std::string_view text);
// Bytes of the character that starts at `offset`.
[[nodiscard]] size_t char_size(std::string_view text, size_t offset);
// Where the character that ends at `end`, which is not 0, starts.
[[nodiscard]] size_t char_before(std::string_view text, size_t end);
[[nodiscard]] char32_t char_at(std::string_view text, size_t offset);
// Byte offset of character `index`; the text's size if it has no more than `index` characters.
[[nodiscard]] size_t char_offset(std::string_view text, size_t index);
void append_char(std::string& text, char32_t code);

// Python's str.isspace().
[[nodiscard]] bool is_space(char32_t code);
// What Python's str.splitlines() splits at.
[[nodiscard]] bool is_line_end(char32_t code);
[[nodiscard]] bool is_letter_with_case(char32_t code);
// False for what repr() escapes.
[[nodiscard]] bool is_printable(char32_t code);

// Simple case mappings, and "SS" for a sharp s.
[[nodiscard]] std::string to_upper(std::string_view text);
[[nodiscard]] std::string to_lower(std::string_view text);
// First character upper case, the others lower.
[[nodiscard]] std::string to_capitalized(std::string_view text);
// str.title(): every run of letters capitalized.
[[nodiscard]] std::string to_title(std::string_view text);

// Without the white space, or without the characters of `chars`, at its ends.
struct StripEnds {
  bool left = true;
  bool right = true;
};
[[nodiscard]] std::string_view strip(std::string_view text, StripEnds ends = {});
[[nodiscard]] std::string_view strip(std::string_view text, std::string_view chars, StripEnds ends);

// Like std::string_view::find, in linear time whatever the needle.
[[nodiscard]] size_t find_bytes(std::string_view text, std::string_view needle, size_t from);

}  // namespace lamina::jinja
