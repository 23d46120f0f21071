#include "text/jinja/python_text.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

std::string escaped_char(char32_t code) {
  switch (code) {
    case U'\n':
      return "\\n";
    case U'\r':
      return "\\r";
    case U'\t':
      return "\\t";
    case U'\\':
      return "\\\\";
    default:
      break;
  }
  const auto number = static_cast<uint32_t>(code);
  if (number <= 0xFF) return fmt::format("\\x{:02x}", number);
  if (number <= 0xFFFF) return fmt::format("\\u{:04x}", number);
  return fmt::format("\\U{:08x}", number);
}

template <typename Append>
void escape_text(std::string_view text, Append append) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  append(std::string_view(&quote, 1));
  size_t plain = 0;  // start of what needs no escape
  for (size_t at = 0; at < text.size();) {
    const size_t size = char_size(text, at);
    const char32_t code = char_at(text, at);
    const bool is_quote = code == static_cast<char32_t>(quote);
    if (is_quote || code == U'\\' || !is_printable(code)) {
      append(text.substr(plain, at - plain));
      append(is_quote ? std::string("\\") + quote : escaped_char(code));
      plain = at + size;
    }
    at += size;
  }
  append(text.substr(plain));
  append(std::string_view(&quote, 1));
}

void append_items(TextBuilder& out, const Sequence& sequence) {
  const bool is_tuple = sequence.kind == SequenceKind::kTuple;
  out.append(is_tuple ? '(' : '[');
  bool is_first = true;
  for (const Value& item : sequence.items) {
    if (!std::exchange(is_first, false)) out.append(", ");
    append_repr(out, item);
  }
  if (is_tuple && sequence.items.size() == 1) out.append(',');
  out.append(is_tuple ? ')' : ']');
}

void append_dict(TextBuilder& out, const Dict& dict) {
  out.append('{');
  bool is_first = true;
  for (const Dict::Entry& entry : dict.entries()) {
    if (!std::exchange(is_first, false)) out.append(", ");
    append_repr(out, entry.key);
    out.append(": ");
    append_repr(out, entry.value);
  }
  out.append('}');
}

// What str() and repr() share.
void append_common(TextBuilder& out, const Value& value) {
  out.runtime().budget().step();
  switch (value.kind()) {
    case Kind::kNone:
      return out.append("None");
    case Kind::kBool:
      return out.append(value.as_bool() ? "True" : "False");
    case Kind::kInt:
      return out.append(fmt::format("{}", value.as_int()));
    case Kind::kFloat:
      return out.append(float_repr(value.as_float()));
    case Kind::kDict:
      return append_dict(out, *value.dict());
    case Kind::kSequence:
      if (value.sequence()->kind == SequenceKind::kList ||
          value.sequence()->kind == SequenceKind::kTuple)
        return append_items(out, *value.sequence());
      break;
    case Kind::kUndefined:
    case Kind::kText:
    case Kind::kFunction:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      break;
  }
  fail("a {} has no text here", type_name(value));
}

}  // namespace

std::string float_repr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(
      buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::scientific);
  std::string text(buffer.data(), end.ptr);  // "-1.25e+02"
  const bool is_negative = text.front() == '-';
  if (is_negative) text.erase(0, 1);
  const size_t mark = text.find('e');
  const int exponent = std::atoi(text.c_str() + mark + 1);
  std::string digits = text.substr(0, mark);
  if (digits.size() > 1) digits.erase(1, 1);  // the point
  constexpr int kMaxPlainExponent = 16;
  if (exponent < -4 || exponent >= kMaxPlainExponent) {
    return (is_negative ? "-" : "") + text;
  }
  if (exponent < 0) {
    digits = "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  } else {
    const auto whole = static_cast<size_t>(exponent) + 1;
    if (digits.size() <= whole) digits.append(whole - digits.size() + 1, '0');
    digits.insert(whole, 1, '.');
  }
  return (is_negative ? "-" : "") + digits;
}

void append_str(TextBuilder& out, const Value& value) {
  if (value.is(Kind::kUndefined)) return;
  if (value.is(Kind::kText)) {
    out.runtime().budget().touch_bytes(value.bytes().size());
    out.append(value.bytes());
  } else {
    append_common(out, value);
  }
}

void append_repr(TextBuilder& out, const Value& value) {
  if (value.is(Kind::kUndefined)) return out.append("Undefined");
  if (!value.is(Kind::kText)) return append_common(out, value);
  out.runtime().budget().step();
  out.runtime().budget().touch_chars(value.bytes().size());
  escape_text(value.bytes(), [&out](std::string_view part) { out.append(part); });
}

TextPtr to_text(Runtime& runtime, const Value& value) {
  if (value.is(Kind::kText)) return value.text();
  TextBuilder out(runtime);
  append_str(out, value);
  return out.take_value().text();
}

std::string quoted(std::string_view text) {
  constexpr size_t kMaxChars = 80;
  std::string quoted_text;
  escape_text(text.substr(0, char_offset(text, kMaxChars)),
              [&quoted_text](std::string_view part) { quoted_text += part; });
  return quoted_text;
}

}  // namespace lamina::jinja
