// Filters on text.
#include <algorithm>

#include "text/jinja/builtin.h"
#include "text/jinja/json.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/text_functions.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

Value filter_trim(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const TextPtr text = to_text(runtime, input);
  runtime.budget().touch_bytes(text->bytes.size());
  if (arguments.get(0).is(Kind::kNone))
    return runtime.text(std::string(strip(text->bytes)), text->is_safe);
  const std::string& chars = arguments.text(0);
  runtime.budget().touch_bytes(text->bytes.size() * chars.size());
  return runtime.text(std::string(strip(text->bytes, chars, {})), text->is_safe);
}

template <std::string (*Map)(std::string_view)>
Value filter_case(Runtime& runtime, const Value& input, const BoundArguments&) {
  const TextPtr text = to_text(runtime, input);
  runtime.budget().touch_chars(text->bytes.size());
  return runtime.text(Map(text->bytes));
}

bool is_word_break(char32_t code) {
  return is_space(code) || code == U'-' || code == U'(' || code == U'{' || code == U'[' ||
         code == U'<';
}

// Unlike str.title(), words begin only after spaces, dashes and opening brackets.
Value filter_title(Runtime& runtime, const Value& input, const BoundArguments&) {
  const TextPtr text = to_text(runtime, input);
  const std::string_view bytes = text->bytes;
  runtime.budget().touch_chars(bytes.size());
  std::string title;
  size_t word = 0;
  bool in_break = false;
  for (size_t at = 0; at < bytes.size(); at += char_size(bytes, at)) {
    if (is_word_break(char_at(bytes, at)) == in_break) continue;
    in_break = !in_break;
    title += to_capitalized(bytes.substr(word, at - word));
    word = at;
  }
  title += to_capitalized(bytes.substr(word));
  return runtime.text(std::move(title));
}

Value filter_string(Runtime& runtime, const Value& input, const BoundArguments&) {
  return Value(to_text(runtime, input));
}

Value filter_safe(Runtime& runtime, const Value& input, const BoundArguments&) {
  return runtime.text(to_text(runtime, input)->bytes, true);
}

Value filter_escape(Runtime& runtime, const Value& input, const BoundArguments&) {
  return runtime.text(escape_markup(runtime, input), true);
}

Value filter_replace(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const TextPtr text = to_text(runtime, input);
  const TextPtr old_part = to_text(runtime, arguments[0]);
  const TextPtr new_part = to_text(runtime, arguments[1]);
  const int64_t count = arguments.get(2).is(Kind::kNone) ? -1 : arguments.integer(2, -1);
  return replace_text(runtime, text->bytes, old_part->bytes, new_part->bytes, count);
}

std::string indentation(const Value& width) {
  require_defined(width);
  if (width.is(Kind::kText)) return width.bytes();
  const std::optional<int64_t> count = width.integer();
  constexpr int64_t kMaxIndent = 1024;
  if (!count || *count > kMaxIndent) fail("an indentation is a str or an int up to {}", kMaxIndent);
  return std::string(static_cast<size_t>(std::max<int64_t>(0, *count)), ' ');
}

Value filter_indent(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  require_defined(input);
  if (!input.is(Kind::kText)) fail("indent needs a str, not {}", type_name(input));
  const TextPtr& text = input.text();
  const std::string indent = arguments.has(0) ? indentation(arguments[0]) : std::string(4, ' ');
  const bool has_first = arguments.flag(1, false);
  const bool has_blank = arguments.flag(2, false);
  const std::string ended = text->bytes + "\n";  // as jinja2: a last, empty line counts
  const std::vector<std::string_view> lines = split_lines(runtime, ended);
  TextBuilder out(runtime);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append('\n');
    const bool is_indented = i == 0 ? has_first : has_blank || !lines[i].empty();
    if (is_indented) out.append(indent);
    out.append(lines[i]);
  }
  return out.take_value(text->is_safe);
}

JsonStyle json_style(const BoundArguments& arguments) {
  JsonStyle style;
  style.ensure_ascii = arguments.flag(0, false);
  if (!arguments.get(1).is(Kind::kNone)) style.indent = indentation(arguments[1]);
  style.item_separator = style.indent ? "," : ", ";
  if (const Value separators = arguments.get(2); !separators.is(Kind::kNone)) {
    if (!separators.is(Kind::kSequence) || separators.sequence()->items.size() != 2)
      fail("separators is a pair of str");
    const auto& pair = separators.sequence()->items;
    if (!pair[0].is(Kind::kText) || !pair[1].is(Kind::kText)) fail("separators is a pair of str");
    style.item_separator = pair[0].bytes();
    style.key_separator = pair[1].bytes();
  }
  style.sort_keys = arguments.flag(3, false);
  return style;
}

Value filter_tojson(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  TextBuilder out(runtime);
  append_json(out, input, json_style(arguments));
  return out.take_value();
}

}  // namespace

std::span<const Builtin> text_filters() {
  static const std::vector<Builtin> kFilters = {
      {"trim", filter_trim, {"chars"}},
      {"upper", filter_case<to_upper>},
      {"lower", filter_case<to_lower>},
      {"capitalize", filter_case<to_capitalized>},
      {"title", filter_title},
      {"string", filter_string},
      {"safe", filter_safe},
      {"escape", filter_escape},
      {"e", filter_escape},
      {"replace", filter_replace, {"old", "new", "count"}, 2},
      {"indent", filter_indent, {"width", "first", "blank"}},
      {"tojson", filter_tojson, {"ensure_ascii", "indent", "separators", "sort_keys"}},
  };
  return kFilters;
}

}  // namespace lamina::jinja
