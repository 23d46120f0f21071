#include "text/jinja/unicode.h"

#include <string.h>  // memmem
#include <utf8proc.h>

namespace lamina::jinja {
namespace {

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

std::string map_chars(std::string_view text, utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  std::string mapped;
  mapped.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += char_size(text, at)) {
    append_char(mapped,
                static_cast<char32_t>(map(static_cast<utf8proc_int32_t>(char_at(text, at)))));
  }
  return mapped;
}

constexpr char32_t kSharpS = 0xDF;

void append_capital(std::string& text, char32_t code) {
  if (code == kSharpS) {
    text += "Ss";
  } else {
    append_char(text, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code))));
  }
}

}  // namespace

bool is_valid_utf8(std::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    utf8proc_int32_t code = 0;
    const auto size = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(bytes.data()) + at,
                                       static_cast<utf8proc_ssize_t>(bytes.size() - at),
                                       &code);
    if (size <= 0) return false;
    at += static_cast<size_t>(size);
  }
  return true;
}

size_t count_chars(std::string_view text) {
  size_t count = 0;
  for (const char byte : text) count += is_continuation(byte) ? 0U : 1U;
  return count;
}

size_t char_size(std::string_view text, size_t offset) {
  size_t end = offset + 1;
  while (end < text.size() && is_continuation(text[end])) ++end;
  return end - offset;
}

size_t char_before(std::string_view text, size_t end) {
  size_t offset = end - 1;
  while (offset > 0 && is_continuation(text[offset])) --offset;
  return offset;
}

char32_t char_at(std::string_view text, size_t offset) {
  utf8proc_int32_t code = 0;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset,
                   static_cast<utf8proc_ssize_t>(text.size() - offset),
                   &code);
  return code < 0 ? U'\uFFFD' : static_cast<char32_t>(code);
}

size_t char_offset(std::string_view text, size_t index) {
  size_t offset = 0;
  for (; index > 0 && offset < text.size(); --index) offset += char_size(text, offset);
  return offset;
}

void append_char(std::string& text, char32_t code) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

bool is_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
         code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_line_end(char32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

bool is_letter_with_case(char32_t code) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

bool is_printable(char32_t code) {
  if (code == U' ') return true;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category != UTF8PROC_CATEGORY_CC && category != UTF8PROC_CATEGORY_CF &&
         category != UTF8PROC_CATEGORY_CS && category != UTF8PROC_CATEGORY_CO &&
         category != UTF8PROC_CATEGORY_CN && category != UTF8PROC_CATEGORY_ZL &&
         category != UTF8PROC_CATEGORY_ZP && category != UTF8PROC_CATEGORY_ZS;
}

std::string to_upper(std::string_view text) {
  std::string upper;
  upper.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += char_size(text, at)) {
    const char32_t code = char_at(text, at);
    if (code == kSharpS) {
      upper += "SS";
    } else {
      append_char(upper,
                  static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code))));
    }
  }
  return upper;
}

std::string to_lower(std::string_view text) {
  return map_chars(text, utf8proc_tolower);
}

std::string to_capitalized(std::string_view text) {
  if (text.empty()) return {};
  std::string capitalized;
  append_capital(capitalized, char_at(text, 0));
  return capitalized + to_lower(text.substr(char_size(text, 0)));
}

std::string to_title(std::string_view text) {
  std::string title;
  title.reserve(text.size());
  bool in_word = false;
  for (size_t at = 0; at < text.size(); at += char_size(text, at)) {
    const char32_t code = char_at(text, at);
    if (in_word) {
      append_char(title,
                  static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
    } else {
      append_capital(title, code);
    }
    in_word = is_letter_with_case(code);
  }
  return title;
}

namespace {

template <typename Drops>
std::string_view strip_if(std::string_view text, StripEnds ends, Drops drops) {
  while (ends.left && !text.empty() && drops(char_at(text, 0)))
    text.remove_prefix(char_size(text, 0));
  while (ends.right && !text.empty()) {
    const size_t last = char_before(text, text.size());
    if (!drops(char_at(text, last))) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

}  // namespace

std::string_view strip(std::string_view text, StripEnds ends) {
  return strip_if(text, ends, is_space);
}

std::string_view strip(std::string_view text, std::string_view chars, StripEnds ends) {
  std::u32string dropped;
  for (size_t at = 0; at < chars.size(); at += char_size(chars, at))
    dropped.push_back(char_at(chars, at));
  return strip_if(
      text, ends, [&dropped](char32_t code) { return dropped.find(code) != std::u32string::npos; });
}

size_t find_bytes(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* hit = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (hit == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(hit) - text.data());
}

}  // namespace lamina::jinja
