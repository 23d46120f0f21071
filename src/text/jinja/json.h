// JSON in and out: the caller's context as values, and the tojson filter as Hugging Face defines it
// (Python's json.dumps with ensure_ascii off).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

// Throws for malformed JSON, integers beyond 64 bits and nesting beyond kMaxValueDepth.
Value parse_json(Runtime& runtime, std::string_view text);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // a line for every element, indented by this
  std::string item_separator;
  std::string key_separator = ": ";
};

void append_json(TextBuilder& out, const Value& value, const JsonStyle& style);

}  // namespace lamina::jinja
