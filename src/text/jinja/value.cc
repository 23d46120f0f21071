#include "text/jinja/value.h"

#include <cmath>

#include "text/jinja/unicode.h"

namespace lamina::jinja {

Value Value::undefined(std::string why) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(why))};
  return value;
}

const std::string& Value::bytes() const {
  return text()->bytes;
}

std::optional<int64_t> Value::integer() const {
  if (is(Kind::kInt)) return as_int();
  if (is(Kind::kBool)) return as_bool() ? 1 : 0;
  return std::nullopt;
}

int32_t Value::depth() const {
  if (is(Kind::kSequence)) return sequence()->depth;
  if (is(Kind::kDict)) return dict()->depth();
  if (is(Kind::kFunction)) return function()->self.depth() + 1;
  return 0;
}

bool Value::is_same(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kBool:
      return as_bool() == other.as_bool();
    case Kind::kInt:
      return as_int() == other.as_int();
    case Kind::kFloat:
      return as_float() == other.as_float();
    case Kind::kText:
      return bytes() == other.bytes();
    case Kind::kSequence:
      return sequence() == other.sequence();
    case Kind::kDict:
      return dict() == other.dict();
    case Kind::kFunction:
      return function() == other.function();
    case Kind::kNamespace:
      return &name_space() == &other.name_space();
    case Kind::kLoop:
      return &loop() == &other.loop();
    case Kind::kMacro:
      return &macro() == &other.macro();
  }
  return false;
}

void Dict::set(Value key, Value value) {
  std::optional<std::string> hash = hash_key(key);
  if (!hash) fail("unhashable type: '{}'", type_name(key));
  depth_ = std::max(depth_, value.depth() + 1);
  if (depth_ > kMaxValueDepth) fail("values are nested deeper than {}", kMaxValueDepth);
  const auto [position, is_new] = index_.try_emplace(std::move(*hash), entries_.size());
  if (is_new) {
    entries_.push_back({std::move(key), std::move(value)});
  } else {
    entries_[position->second].value = std::move(value);
  }
}

const Value* Dict::find(const Value& key) const {
  if (key.is(Kind::kText)) return find(key.bytes());
  const std::optional<std::string> hash = hash_key(key);
  if (!hash) return nullptr;
  const auto position = index_.find(*hash);
  return position == index_.end() ? nullptr : &entries_[position->second].value;
}

const Value* Dict::find(std::string_view key) const {
  const auto position = index_.find(fmt::format("s{}", key));
  return position == index_.end() ? nullptr : &entries_[position->second].value;
}

std::optional<std::string> hash_key(const Value& key) {
  switch (key.kind()) {
    case Kind::kText:
      return fmt::format("s{}", key.bytes());
    case Kind::kBool:
    case Kind::kInt:
      return fmt::format("n{}", *key.integer());
    case Kind::kFloat: {
      const double number = key.as_float();
      constexpr double kLimit = 9.2e18;  // below 2^63
      if (std::trunc(number) == number && std::abs(number) < kLimit)
        return fmt::format("n{}", static_cast<int64_t>(number));
      return fmt::format("f{}", number);
    }
    case Kind::kNone:
      return "z";
    case Kind::kUndefined:
      return "u";
    case Kind::kSequence:
    case Kind::kDict:
    case Kind::kFunction:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      return std::nullopt;
  }
  return std::nullopt;
}

TextPtr make_constant_text(std::string bytes) {
  auto text = std::make_shared<Text>();
  text->num_chars = count_chars(bytes);
  text->bytes = std::move(bytes);
  return text;
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kText:
      return "str";
    case Kind::kDict:
      return "dict";
    case Kind::kFunction:
      return "function";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kMacro:
      return "Macro";
    case Kind::kSequence:
      break;
  }
  switch (value.sequence()->kind) {
    case SequenceKind::kList:
      return "list";
    case SequenceKind::kTuple:
      return "tuple";
    case SequenceKind::kRange:
      return "range";
    case SequenceKind::kView:
      return "dict view";
    case SequenceKind::kIterator:
      return "generator";
  }
  return "object";
}

}  // namespace lamina::jinja
