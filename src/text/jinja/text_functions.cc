#include "text/jinja/text_functions.h"

#include "text/jinja/python_text.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

// Python puts the new part before every character and at the end.
Value interleave(Runtime& runtime,
                 std::string_view text,
                 std::string_view part,
                 int64_t max_count) {
  TextBuilder out(runtime);
  size_t at = 0;
  for (; max_count != 0; --max_count) {
    runtime.budget().step();
    out.append(part);
    if (at >= text.size()) break;
    const size_t size = char_size(text, at);
    out.append(text.substr(at, size));
    at += size;
  }
  out.append(text.substr(at));
  return out.take_value();
}

}  // namespace

Value replace_text(Runtime& runtime,
                   std::string_view text,
                   std::string_view old_part,
                   std::string_view new_part,
                   int64_t max_count) {
  runtime.budget().touch_bytes(text.size());
  if (old_part.empty()) return interleave(runtime, text, new_part, max_count);
  TextBuilder out(runtime);
  size_t from = 0;
  for (; max_count != 0; --max_count) {
    const size_t hit = find_bytes(text, old_part, from);
    if (hit == std::string_view::npos) break;
    runtime.budget().touch_bytes(old_part.size() + new_part.size());
    out.append(text.substr(from, hit - from));
    out.append(new_part);
    from = hit + old_part.size();
  }
  out.append(text.substr(from));
  return out.take_value();
}

Value join_texts(Runtime& runtime, std::string_view separator, const std::vector<Value>& items) {
  TextBuilder out(runtime);
  bool is_first = true;
  for (const Value& item : items) {
    runtime.budget().step();
    if (!std::exchange(is_first, false)) out.append(separator);
    append_str(out, item);
  }
  return out.take_value();
}

std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text) {
  runtime.budget().touch_chars(text.size());
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t size = char_size(text, at);
    if (!is_line_end(char_at(text, at))) {
      at += size;
      continue;
    }
    runtime.budget().step();
    lines.push_back(text.substr(start, at - start));
    at += text.substr(at, 2) == "\r\n" ? 2 : size;
    start = at;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string escape_markup(Runtime& runtime, const Value& value) {
  const TextPtr text = to_text(runtime, value);
  if (text->is_safe) return text->bytes;
  runtime.budget().touch_chars(text->bytes.size());
  TextBuilder escaped(runtime);
  for (const char byte : text->bytes) {
    switch (byte) {
      case '&':
        escaped.append("&amp;");
        break;
      case '<':
        escaped.append("&lt;");
        break;
      case '>':
        escaped.append("&gt;");
        break;
      case '\'':
        escaped.append("&#39;");
        break;
      case '"':
        escaped.append("&#34;");
        break;
      default:
        escaped.append(byte);
    }
  }
  return escaped.take();
}

}  // namespace lamina::jinja
