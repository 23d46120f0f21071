// Methods of str.
#include <algorithm>

#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/text_functions.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

template <bool Left, bool Right>
Value text_strip(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  constexpr StripEnds kEnds = {.left = Left, .right = Right};
  const std::string& text = self.bytes();
  runtime.budget().touch_bytes(text.size());
  if (arguments.get(0).is(Kind::kNone)) return runtime.text(strip(text, kEnds));
  const std::string& chars = arguments.text(0);
  runtime.budget().touch_bytes(text.size() * chars.size());
  return runtime.text(strip(text, chars, kEnds));
}

// What is left once the splits are used up keeps the white space at its end, as in Python.
std::vector<Value> split_at_spaces(Runtime& runtime, std::string_view text, int64_t max_splits) {
  constexpr StripEnds kLeft = {.left = true, .right = false};
  std::vector<Value> parts;
  for (text = strip(text, kLeft); !text.empty(); text = strip(text, kLeft)) {
    runtime.budget().step();
    size_t end = max_splits-- == 0 ? text.size() : 0;
    while (end < text.size() && !is_space(char_at(text, end))) end += char_size(text, end);
    parts.push_back(runtime.text(text.substr(0, end)));
    text.remove_prefix(end);
  }
  return parts;
}

// The same from the right: what is left keeps the white space at its start.
std::vector<Value> rsplit_at_spaces(Runtime& runtime, std::string_view text, int64_t max_splits) {
  constexpr StripEnds kRight = {.left = false, .right = true};
  runtime.budget().touch_bytes(text.size());
  std::vector<Value> parts;
  for (text = strip(text, kRight); !text.empty(); text = strip(text, kRight)) {
    runtime.budget().step();
    size_t begin = max_splits-- == 0 ? 0 : text.size();
    while (begin > 0) {
      const size_t before = char_before(text, begin);
      if (is_space(char_at(text, before))) break;
      begin = before;
    }
    parts.push_back(runtime.text(text.substr(begin)));
    text = text.substr(0, begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Value> split_at(Runtime& runtime,
                            std::string_view text,
                            std::string_view separator,
                            int64_t max_splits) {
  std::vector<Value> parts;
  size_t from = 0;
  while (max_splits-- != 0) {
    const size_t hit = find_bytes(text, separator, from);
    if (hit == std::string_view::npos) break;
    runtime.budget().step();
    parts.push_back(runtime.text(text.substr(from, hit - from)));
    from = hit + separator.size();
  }
  parts.push_back(runtime.text(text.substr(from)));
  return parts;
}

Value text_split(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  runtime.budget().touch_bytes(self.bytes().size());
  const int64_t max_splits = std::max<int64_t>(arguments.integer(1, -1), -1);
  if (arguments.get(0).is(Kind::kNone))
    return runtime.sequence(split_at_spaces(runtime, self.bytes(), max_splits));
  const std::string& separator = arguments.text(0);
  if (separator.empty()) fail("empty separator");
  return runtime.sequence(split_at(runtime, self.bytes(), separator, max_splits));
}

// By splitting the reversed text: bytes may be reversed, as the parts are turned back whole.
Value text_rsplit(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const int64_t max_splits = std::max<int64_t>(arguments.integer(1, -1), -1);
  if (max_splits < 0) return text_split(runtime, self, arguments);
  if (arguments.get(0).is(Kind::kNone))
    return runtime.sequence(rsplit_at_spaces(runtime, self.bytes(), max_splits));
  std::string separator = arguments.text(0);
  if (separator.empty()) fail("empty separator");
  runtime.budget().touch_bytes(self.bytes().size());
  std::string text(self.bytes().rbegin(), self.bytes().rend());
  std::reverse(separator.begin(), separator.end());
  std::vector<Value> parts;
  size_t from = 0;
  for (int64_t splits = 0; splits <= max_splits && from <= text.size(); ++splits) {
    const size_t hit = splits == max_splits ? std::string::npos : find_bytes(text, separator, from);
    const size_t end = hit == std::string::npos ? text.size() : hit;
    parts.push_back(runtime.text(self.bytes().substr(text.size() - end, end - from)));
    if (hit == std::string::npos) break;
    from = hit + separator.size();
  }
  std::reverse(parts.begin(), parts.end());
  return runtime.sequence(std::move(parts));
}

Value text_splitlines(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  if (arguments.flag(0, false)) fail("splitlines(keepends=True) is not supported");
  std::vector<Value> lines;
  for (const std::string_view line : split_lines(runtime, self.bytes()))
    lines.push_back(runtime.text(line));
  return runtime.sequence(std::move(lines));
}

template <typename Matches>
bool matches_any(Runtime& runtime, const Value& affix, Matches matches) {
  require_defined(affix);
  if (affix.is(Kind::kText)) {
    runtime.budget().touch_bytes(affix.bytes().size());
    return matches(affix.bytes());
  }
  if (!affix.is(Kind::kSequence) || affix.sequence()->kind != SequenceKind::kTuple)
    fail("first arg must be str or a tuple of str, not {}", type_name(affix));
  for (const Value& item : affix.sequence()->items) {
    if (!item.is(Kind::kText)) fail("first arg must be str or a tuple of str");
    runtime.budget().step();
    runtime.budget().touch_bytes(item.bytes().size());
    if (matches(item.bytes())) return true;
  }
  return false;
}

Value text_startswith(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return Value(matches_any(runtime, arguments[0], [&](const std::string& affix) {
    return self.bytes().starts_with(affix);
  }));
}

Value text_endswith(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return Value(matches_any(runtime, arguments[0], [&](const std::string& affix) {
    return self.bytes().ends_with(affix);
  }));
}

Value text_removeprefix(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  std::string_view text = self.bytes();
  if (text.starts_with(arguments.text(0))) text.remove_prefix(arguments.text(0).size());
  return runtime.text(text);
}

Value text_removesuffix(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  std::string_view text = self.bytes();
  if (text.ends_with(arguments.text(0))) text.remove_suffix(arguments.text(0).size());
  return runtime.text(text);
}

template <std::string (*Map)(std::string_view)>
Value text_case(Runtime& runtime, const Value& self, const BoundArguments&) {
  runtime.budget().touch_chars(self.bytes().size());
  return runtime.text(Map(self.bytes()));
}

Value text_replace(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return replace_text(
      runtime, self.bytes(), arguments.text(0), arguments.text(1), arguments.integer(2, -1));
}

Value text_join(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const SequencePtr items = runtime.iterate(arguments[0]);
  for (const Value& item : items->items)
    if (!item.is(Kind::kText)) fail("join() expected str items, {} found", type_name(item));
  return join_texts(runtime, self.bytes(), items->items);
}

int64_t find_char(Runtime& runtime, const Value& self, const std::string& part) {
  runtime.budget().touch_bytes(self.bytes().size());
  const size_t hit = find_bytes(self.bytes(), part, 0);
  if (hit == std::string::npos) return -1;
  return static_cast<int64_t>(count_chars(std::string_view(self.bytes()).substr(0, hit)));
}

Value text_find(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return Value(find_char(runtime, self, arguments.text(0)));
}

Value text_index(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const int64_t at = find_char(runtime, self, arguments.text(0));
  if (at < 0) fail("substring not found");
  return Value(at);
}

Value text_count(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string& part = arguments.text(0);
  if (part.empty()) return Value(static_cast<int64_t>(self.text()->num_chars) + 1);
  runtime.budget().touch_bytes(self.bytes().size());
  int64_t count = 0;
  for (size_t at = find_bytes(self.bytes(), part, 0); at != std::string::npos;
       at = find_bytes(self.bytes(), part, at + part.size()))
    ++count;
  return Value(count);
}

template <bool (*Matches)(char32_t)>
Value text_is(Runtime& runtime, const Value& self, const BoundArguments&) {
  const std::string& text = self.bytes();
  runtime.budget().touch_chars(text.size());
  for (size_t at = 0; at < text.size(); at += char_size(text, at))
    if (!Matches(char_at(text, at))) return Value(false);
  return Value(!text.empty());
}

bool is_digit(char32_t code) {
  return code >= U'0' && code <= U'9';
}

template <std::string (*Map)(std::string_view)>
Value text_has_case(Runtime& runtime, const Value& self, const BoundArguments&) {
  const std::string& text = self.bytes();
  runtime.budget().touch_chars(text.size());
  return Value(Map(text) == text && to_upper(text) != to_lower(text));
}

// The value of one replacement field: "", "0" or "name".
Value format_field(std::string_view field, const Arguments& arguments, size_t& next) {
  if (field.find_first_of(".[:!{") != std::string_view::npos)
    fail("format field {} is not supported", quoted(field));
  if (!field.empty() && !is_digit(static_cast<unsigned char>(field.front()))) {
    const Value* named = arguments.find(field);
    if (named == nullptr) fail("format has no argument {}", quoted(field));
    return *named;
  }
  size_t index = 0;
  constexpr size_t kMaxDigits = 6;
  if (field.size() > kMaxDigits) fail("format field {} is not supported", quoted(field));
  for (const char digit : field) index = index * 10 + static_cast<size_t>(digit - '0');
  if (field.empty()) index = next++;
  if (index >= arguments.positional.size())
    fail("Replacement index {} out of range for positional args tuple", index);
  return arguments.positional[index];
}

Value text_format(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string& text = self.bytes();
  runtime.budget().touch_chars(text.size());
  TextBuilder out(runtime);
  size_t next = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const bool is_double = at + 1 < text.size() && text[at + 1] == text[at];
    if (text[at] != '{' && text[at] != '}') {
      out.append(text[at]);
    } else if (is_double) {
      out.append(text[at++]);
    } else {
      const size_t close = text.find('}', at);
      if (text[at] == '}' || close == std::string::npos) fail("a single brace in format string");
      runtime.budget().step();
      const std::string_view field = std::string_view(text).substr(at + 1, close - at - 1);
      append_str(out, format_field(field, arguments.raw(), next));
      at = close;
    }
  }
  return out.take_value();
}

}  // namespace

std::span<const Builtin> text_methods() {
  static const std::vector<Builtin> kMethods = {
      {"strip", text_strip<true, true>, {"chars"}},
      {"lstrip", text_strip<true, false>, {"chars"}},
      {"rstrip", text_strip<false, true>, {"chars"}},
      {"split", text_split, {"sep", "maxsplit"}},
      {"rsplit", text_rsplit, {"sep", "maxsplit"}},
      {"splitlines", text_splitlines, {"keepends"}},
      {"startswith", text_startswith, {"prefix"}, 1},
      {"endswith", text_endswith, {"suffix"}, 1},
      {"removeprefix", text_removeprefix, {"prefix"}, 1},
      {"removesuffix", text_removesuffix, {"suffix"}, 1},
      {"upper", text_case<to_upper>},
      {"lower", text_case<to_lower>},
      {"title", text_case<to_title>},
      {"capitalize", text_case<to_capitalized>},
      {"replace", text_replace, {"old", "new", "count"}, 2},
      {"join", text_join, {"iterable"}, 1},
      {"find", text_find, {"sub"}, 1},
      {"index", text_index, {"sub"}, 1},
      {"count", text_count, {"sub"}, 1},
      {"isspace", text_is<is_space>},
      {"isdigit", text_is<is_digit>},
      {"isupper", text_has_case<to_upper>},
      {"islower", text_has_case<to_lower>},
      {.name = "format", .call = text_format, .is_variadic = true},
  };
  return kMethods;
}

}  // namespace lamina::jinja
