#include "text/jinja/json.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "text/jinja/python_text.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

// Builds values as the parser meets them: no tree in between, and a depth known at every point.
class ContextHandler {
 public:
  explicit ContextHandler(Runtime& runtime) : runtime_(runtime) {}

  bool null() { return add(Value()); }
  bool boolean(bool value) { return add(Value(value)); }
  bool number_integer(int64_t value) { return add(Value(value)); }
  bool number_unsigned(uint64_t value) {
    if (value > static_cast<uint64_t>(INT64_MAX)) fail("integer {} exceeds 64 bits", value);
    return add(Value(static_cast<int64_t>(value)));
  }
  bool number_float(double value, const std::string& text) {
    if (text.find_first_of(".eE") == std::string::npos) fail("integer {} exceeds 64 bits", text);
    return add(Value(value));
  }
  bool string(std::string& value) { return add(runtime_.text(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(size_t) { return open(true); }
  bool start_array(size_t) { return open(false); }
  bool key(std::string& name) {
    open_.back().key = runtime_.text(std::move(name));
    return true;
  }
  bool end_object() {
    Dict dict = std::move(open_.back().dict);
    open_.pop_back();
    return add(runtime_.dict(std::move(dict)));
  }
  bool end_array() {
    std::vector<Value> items = std::move(open_.back().items);
    open_.pop_back();
    return add(runtime_.sequence(std::move(items)));
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) {
    fail("the context is not JSON: {}", error.what());
  }

  Value take() { return std::move(result_); }

 private:
  struct Open {
    bool is_object = false;
    Value key;
    Dict dict;
    std::vector<Value> items;
  };

  bool open(bool is_object) {
    if (open_.size() >= static_cast<size_t>(kMaxValueDepth))
      fail("the context is nested deeper than {}", kMaxValueDepth);
    open_.emplace_back().is_object = is_object;
    return true;
  }

  bool add(Value value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().dict.set(std::move(open_.back().key), std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  Runtime& runtime_;
  std::vector<Open> open_;
  Value result_;
};

std::string json_escape(char32_t code, bool ensure_ascii) {
  switch (code) {
    case U'"':
      return "\\\"";
    case U'\\':
      return "\\\\";
    case U'\n':
      return "\\n";
    case U'\r':
      return "\\r";
    case U'\t':
      return "\\t";
    case U'\f':
      return "\\f";
    case U'\b':
      return "\\b";
    default:
      break;
  }
  const auto number = static_cast<uint32_t>(code);
  if (number < 0x20 || (ensure_ascii && number > 0x7E && number <= 0xFFFF))
    return fmt::format("\\u{:04x}", number);
  if (ensure_ascii && number > 0xFFFF) {
    const uint32_t rest = number - 0x10000;
    return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FFU));
  }
  return {};
}

void append_json_text(TextBuilder& out, std::string_view text, bool ensure_ascii) {
  out.runtime().budget().touch_chars(text.size());
  out.append('"');
  size_t plain = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t size = char_size(text, at);
    const std::string escaped = json_escape(char_at(text, at), ensure_ascii);
    if (!escaped.empty()) {
      out.append(text.substr(plain, at - plain));
      out.append(escaped);
      plain = at + size;
    }
    at += size;
  }
  out.append(text.substr(plain));
  out.append('"');
}

std::string json_float(double number) {
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
  return float_repr(number);
}

std::string json_key(const Value& key) {
  switch (key.kind()) {
    case Kind::kText:
      return key.bytes();
    case Kind::kNone:
      return "null";
    case Kind::kBool:
      return key.as_bool() ? "true" : "false";
    case Kind::kInt:
      return fmt::format("{}", key.as_int());
    case Kind::kFloat:
      return json_float(key.as_float());
    case Kind::kUndefined:
    case Kind::kSequence:
    case Kind::kDict:
    case Kind::kFunction:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      break;
  }
  fail("keys must be str, int, float, bool or None, not {}", type_name(key));
}

class JsonWriter {
 public:
  JsonWriter(TextBuilder& out, const JsonStyle& style) : out_(out), style_(style) {}

  void write(const Value& value) {
    out_.runtime().budget().step();
    switch (value.kind()) {
      case Kind::kNone:
        return out_.append("null");
      case Kind::kBool:
        return out_.append(value.as_bool() ? "true" : "false");
      case Kind::kInt:
        return out_.append(fmt::format("{}", value.as_int()));
      case Kind::kFloat:
        return out_.append(json_float(value.as_float()));
      case Kind::kText:
        return append_json_text(out_, value.bytes(), style_.ensure_ascii);
      case Kind::kDict:
        return write_dict(*value.dict());
      case Kind::kSequence:
        if (value.sequence()->kind == SequenceKind::kList ||
            value.sequence()->kind == SequenceKind::kTuple)
          return write_list(value.sequence()->items);
        break;
      case Kind::kUndefined:
      case Kind::kFunction:
      case Kind::kNamespace:
      case Kind::kLoop:
      case Kind::kMacro:
        break;
    }
    fail("Object of type {} is not JSON serializable", type_name(value));
  }

 private:
  void write_list(const std::vector<Value>& items) {
    if (items.empty()) return out_.append("[]");
    out_.append('[');
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i);
      write(items[i]);
    }
    close(']');
  }

  void write_dict(const Dict& dict) {
    if (dict.size() == 0) return out_.append("{}");
    std::vector<const Dict::Entry*> entries;
    entries.reserve(dict.size());
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) sort(entries);
    out_.append('{');
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      separate(i);
      append_json_text(out_, json_key(entries[i]->key), style_.ensure_ascii);
      out_.append(style_.key_separator);
      write(entries[i]->value);
    }
    close('}');
  }

  static void sort(std::vector<const Dict::Entry*>& entries) {
    for (const Dict::Entry* entry : entries)
      if (!entry->key.is(Kind::kText)) fail("sort_keys needs keys of type str");
    std::stable_sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
      return a->key.bytes() < b->key.bytes();
    });
  }

  void separate(size_t index) {
    if (index > 0) out_.append(style_.item_separator);
    if (style_.indent) new_line();
  }

  void close(char bracket) {
    --level_;
    if (style_.indent) new_line();
    out_.append(bracket);
  }

  void new_line() {
    out_.append('\n');
    for (int i = 0; i < level_; ++i) out_.append(*style_.indent);
  }

  TextBuilder& out_;
  const JsonStyle& style_;
  int level_ = 0;
};

}  // namespace

Value parse_json(Runtime& runtime, std::string_view text) {
  ContextHandler handler(runtime);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  return handler.take();
}

void append_json(TextBuilder& out, const Value& value, const JsonStyle& style) {
  JsonWriter(out, style).write(value);
}

}  // namespace lamina::jinja
