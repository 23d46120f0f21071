// Methods of list, tuple, dict and loop; those of str are in methods_text.cc. None changes its
// object.
#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"

namespace lamina::jinja {
namespace {

Value sequence_index(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const auto& items = self.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i)
    if (is_equal(runtime, items[i], arguments[0])) return Value(static_cast<int64_t>(i));
  fail("the item is not in the {}", type_name(self));
}

Value sequence_count(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  int64_t count = 0;
  for (const Value& item : self.sequence()->items)
    count += is_equal(runtime, item, arguments[0]) ? 1 : 0;
  return Value(count);
}

Value copy(Runtime&, const Value& self, const BoundArguments&) {
  return self;  // nothing can tell: values do not change
}

Value dict_get(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  runtime.touch(arguments[0]);
  if (!hash_key(arguments[0])) fail("unhashable type: '{}'", type_name(arguments[0]));
  const Value* found = self.dict()->find(arguments[0]);
  return found != nullptr ? *found : arguments.get(1);
}

Value dict_items(Runtime& runtime, const Value& self, const BoundArguments&) {
  std::vector<Value> items;
  for (const Dict::Entry& entry : self.dict()->entries())
    items.push_back(runtime.sequence({entry.key, entry.value}, SequenceKind::kTuple));
  return runtime.sequence(std::move(items), SequenceKind::kView);
}

Value dict_keys(Runtime& runtime, const Value& self, const BoundArguments&) {
  return runtime.sequence(runtime.iterate(self)->items, SequenceKind::kView);
}

Value dict_values(Runtime& runtime, const Value& self, const BoundArguments&) {
  std::vector<Value> values;
  for (const Dict::Entry& entry : self.dict()->entries()) values.push_back(entry.value);
  return runtime.sequence(std::move(values), SequenceKind::kView);
}

Value loop_cycle(Runtime&, const Value& self, const BoundArguments& arguments) {
  const auto& choices = arguments.raw().positional;
  if (choices.empty()) fail("no items for cycling given");
  return choices[static_cast<size_t>(self.loop().index) % choices.size()];
}

Value loop_changed(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const auto& now = arguments.raw().positional;
  auto& last = self.loop().last_changed;
  bool is_same = last.has_value() && last->size() == now.size();
  for (size_t i = 0; is_same && i < now.size(); ++i)
    is_same = is_equal(runtime, (*last)[i], now[i]);
  if (!is_same) last = now;
  return Value(!is_same);
}

std::span<const Builtin> dict_methods() {
  static const std::vector<Builtin> kMethods = {
      {"get", dict_get, {"key", "default"}, 1},
      {"items", dict_items},
      {"keys", dict_keys},
      {"values", dict_values},
      {"copy", copy},
  };
  return kMethods;
}

std::span<const Builtin> sequence_methods() {
  static const std::vector<Builtin> kMethods = {
      {"index", sequence_index, {"value"}, 1},
      {"count", sequence_count, {"value"}, 1},
      {"copy", copy},
  };
  return kMethods;
}

std::span<const Builtin> loop_methods() {
  static const std::vector<Builtin> kMethods = {
      {.name = "cycle", .call = loop_cycle, .is_variadic = true},
      {.name = "changed", .call = loop_changed, .is_variadic = true},
  };
  return kMethods;
}

std::span<const Builtin> methods_of(const Value& self) {
  if (self.is(Kind::kText)) return text_methods();
  if (self.is(Kind::kDict)) return dict_methods();
  if (self.is(Kind::kLoop)) return loop_methods();
  if (!self.is(Kind::kSequence)) return {};
  switch (self.sequence()->kind) {
    case SequenceKind::kList:
      return sequence_methods();
    case SequenceKind::kTuple:
    case SequenceKind::kRange:
      return sequence_methods().first(2);  // no copy
    case SequenceKind::kView:
    case SequenceKind::kIterator:
      return {};
  }
  return {};
}

}  // namespace

const Builtin* find_method(const Value& self, std::string_view name) {
  for (const Builtin& method : methods_of(self))
    if (method.name == name) return &method;
  return nullptr;
}

}  // namespace lamina::jinja
