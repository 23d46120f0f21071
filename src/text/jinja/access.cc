#include "text/jinja/access.h"

#include <algorithm>
#include <array>

#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

std::string owner_name(const Value& value) {
  return value.is(Kind::kNone) ? "None" : fmt::format("'{} object'", type_name(value));
}

Value no_attribute(const Value& value, std::string_view name) {
  return Value::undefined(fmt::format("{} has no attribute {}", owner_name(value), quoted(name)));
}

// Methods that exist in Python and that the sandbox hides because they change their object.
bool is_mutator(const Value& value, std::string_view name) {
  static constexpr std::array<std::string_view, 5> kOfDict = {
      "clear", "pop", "popitem", "setdefault", "update"};
  static constexpr std::array<std::string_view, 8> kOfList = {
      "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
  const auto has = [name](const auto& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (value.is(Kind::kDict)) return has(kOfDict);
  return value.is(Kind::kSequence) && value.sequence()->kind == SequenceKind::kList && has(kOfList);
}

Value loop_neighbour(const Loop& loop, int64_t offset, const char* why) {
  const int64_t at = loop.index + offset;
  if (at < 0 || at >= static_cast<int64_t>(loop.items->items.size())) return Value::undefined(why);
  return loop.items->items[static_cast<size_t>(at)];
}

std::optional<Value> loop_attribute(const Loop& loop, std::string_view name) {
  if (loop.items == nullptr) return std::nullopt;  // kept past its end
  const auto count = static_cast<int64_t>(loop.items->items.size());
  if (name == "index") return Value(loop.index + 1);
  if (name == "index0") return Value(loop.index);
  if (name == "first") return Value(loop.index == 0);
  if (name == "last") return Value(loop.index + 1 == count);
  if (name == "length") return Value(count);
  if (name == "revindex") return Value(count - loop.index);
  if (name == "revindex0") return Value(count - loop.index - 1);
  if (name == "depth") return Value(int64_t{1});  // only recursive loops have more
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem") return loop_neighbour(loop, -1, "there is no previous item");
  if (name == "nextitem") return loop_neighbour(loop, 1, "there is no next item");
  return std::nullopt;
}

// What Python's getattr() finds: methods and the attributes of our own objects.
std::optional<Value> python_attribute(Runtime& runtime, const Value& value, std::string_view name) {
  if (value.is(Kind::kNamespace)) {
    const auto& attributes = value.name_space().attributes;
    const auto found = attributes.find(std::string(name));
    if (found != attributes.end()) return found->second;
    return std::nullopt;
  }
  if (value.is(Kind::kLoop))
    if (std::optional<Value> found = loop_attribute(value.loop(), name)) return found;
  if (const Builtin* method = find_method(value, name)) return runtime.bind(*method, value);
  if (is_mutator(value, name)) {
    return Value::undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe", name, type_name(value)));
  }
  return std::nullopt;
}

Value item_of_text(Runtime& runtime, const Text& text, size_t index) {
  if (!text.is_ascii()) runtime.budget().touch_bytes(text.bytes.size());
  const size_t offset = text.is_ascii() ? index : char_offset(text.bytes, index);
  return runtime.text(text.bytes.substr(offset, char_size(text.bytes, offset)), text.is_safe);
}

bool is_indexable(const Value& value) {
  if (value.is(Kind::kText)) return true;
  return value.is(Kind::kSequence) && value.sequence()->kind != SequenceKind::kView &&
         value.sequence()->kind != SequenceKind::kIterator;
}

std::optional<Value> item_at(Runtime& runtime, const Value& value, int64_t index) {
  const int64_t length = runtime.length(value);
  if (index < 0) index += length;
  if (index < 0 || index >= length) return std::nullopt;
  if (value.is(Kind::kText))
    return item_of_text(runtime, *value.text(), static_cast<size_t>(index));
  return value.sequence()->items[static_cast<size_t>(index)];
}

struct Bounds {
  int64_t start = 0;
  int64_t step = 1;
  int64_t count = 0;
};

// As Python's slice.indices().
Bounds resolve(const Value& start, const Value& stop, const Value& step, int64_t length) {
  const auto number = [](const Value& bound) -> std::optional<int64_t> {
    if (bound.is(Kind::kNone)) return std::nullopt;
    require_defined(bound);
    if (!bound.integer()) fail("slice indices must be integers or None");
    return bound.integer();
  };
  const int64_t by = number(step).value_or(1);
  if (by == 0) fail("slice step cannot be zero");
  const int64_t low = by > 0 ? 0 : -1;
  const int64_t high = by > 0 ? length : length - 1;
  const auto clamp = [&](std::optional<int64_t> bound, int64_t absent) {
    if (!bound) return absent;
    return std::clamp(*bound < 0 ? *bound + length : *bound, low, high);
  };
  const int64_t from = clamp(number(start), by > 0 ? low : high);
  const int64_t to = clamp(number(stop), by > 0 ? high : low);
  const int64_t distance = by > 0 ? to - from : from - to;
  if (distance <= 0) return {};
  // Written so that no step, however large, overflows.
  const int64_t stride = by > 0 ? by : (by == INT64_MIN ? INT64_MAX : -by);
  return {.start = from, .step = by, .count = (distance - 1) / stride + 1};
}

Value slice_text(Runtime& runtime, const Text& text, const Bounds& bounds) {
  const std::string& bytes = text.bytes;
  runtime.budget().touch_chars(bytes.size());
  if (bounds.count == 0) return runtime.text("");
  if (bounds.step == 1) {
    const size_t from = char_offset(bytes, static_cast<size_t>(bounds.start));
    const std::string_view rest = std::string_view(bytes).substr(from);
    return runtime.text(
        std::string(rest.substr(0, char_offset(rest, static_cast<size_t>(bounds.count)))),
        text.is_safe);
  }
  Charge charge(runtime.budget(), bytes.size() * sizeof(size_t));
  std::vector<size_t> offsets;
  offsets.reserve(text.num_chars);
  for (size_t at = 0; at < bytes.size(); at += char_size(bytes, at)) offsets.push_back(at);
  std::string sliced;
  for (int64_t i = 0; i < bounds.count; ++i) {
    const size_t at = offsets[static_cast<size_t>(bounds.start + i * bounds.step)];
    sliced.append(bytes, at, char_size(bytes, at));
  }
  return runtime.text(std::move(sliced), text.is_safe);
}

}  // namespace

Value get_attribute(Runtime& runtime, const Value& value, std::string_view name) {
  runtime.budget().touch_bytes(name.size());
  require_defined(value);
  if (std::optional<Value> found = python_attribute(runtime, value, name)) return *found;
  if (value.is(Kind::kDict))
    if (const Value* found = value.dict()->find(name)) return *found;
  return no_attribute(value, name);
}

Value get_item(Runtime& runtime, const Value& value, const Value& key) {
  require_defined(value);
  runtime.touch(key);
  if (value.is(Kind::kDict)) {
    if (const Value* found = value.dict()->find(key)) return *found;
  } else if (is_indexable(value) && key.integer()) {
    if (std::optional<Value> found = item_at(runtime, value, *key.integer())) return *found;
  }
  if (key.is(Kind::kText)) {
    if (std::optional<Value> found = python_attribute(runtime, value, key.bytes())) return *found;
    return no_attribute(value, key.bytes());
  }
  if (key.integer())
    return Value::undefined(fmt::format("{} has no element {}", owner_name(value), *key.integer()));
  return Value::undefined(
      fmt::format("{} has no such element (a {})", owner_name(value), type_name(key)));
}

Value get_slice(Runtime& runtime,
                const Value& value,
                const Value& start,
                const Value& stop,
                const Value& step) {
  require_defined(value);
  if (!is_indexable(value)) fail("'{}' object cannot be sliced", type_name(value));
  const Bounds bounds = resolve(start, stop, step, runtime.length(value));
  if (value.is(Kind::kText)) return slice_text(runtime, *value.text(), bounds);
  const std::vector<Value>& all = value.sequence()->items;
  runtime.budget().touch_items(static_cast<size_t>(bounds.count));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(bounds.count));
  for (int64_t i = 0; i < bounds.count; ++i)
    items.push_back(all[static_cast<size_t>(bounds.start + i * bounds.step)]);
  return runtime.sequence(std::move(items), value.sequence()->kind);
}

}  // namespace lamina::jinja
