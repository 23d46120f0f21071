#include "text/jinja/runtime.h"

#include <algorithm>

#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

constexpr size_t kObjectBytes = 64;  // about what a shared object costs beside its contents
constexpr size_t kEntryBytes = 160;  // a dict's entry: key, value and its place in the index

}  // namespace

Value Runtime::text(std::string bytes, bool is_safe) {
  budget_.check_text_size(bytes.size());
  budget_.touch_bytes(bytes.size());
  auto text = std::make_shared<Text>();
  text->charge = Charge(budget_, kObjectBytes + bytes.size());
  text->num_chars = count_chars(bytes);
  text->bytes = std::move(bytes);
  text->is_safe = is_safe;
  return Value(TextPtr(std::move(text)));
}

Value Runtime::sequence(std::vector<Value> items, SequenceKind kind) {
  budget_.touch_items(items.size());
  auto sequence = std::make_shared<Sequence>();
  sequence->charge = Charge(budget_, kObjectBytes + items.size() * sizeof(Value));
  sequence->kind = kind;
  for (const Value& item : items) sequence->depth = std::max(sequence->depth, item.depth() + 1);
  if (sequence->depth > kMaxValueDepth) fail("values are nested deeper than {}", kMaxValueDepth);
  sequence->items = std::move(items);
  return Value(SequencePtr(std::move(sequence)));
}

Value Runtime::dict(Dict entries) {
  budget_.touch_items(entries.size());
  size_t bytes = kObjectBytes;
  for (const Dict::Entry& entry : entries.entries())
    bytes += kEntryBytes + (entry.key.is(Kind::kText) ? entry.key.bytes().size() : 0);
  auto dict = std::make_shared<Dict>(std::move(entries));
  dict->charge = Charge(budget_, bytes);
  return Value(DictPtr(std::move(dict)));
}

Value Runtime::bind(const Builtin& builtin, Value self) {
  auto function = std::make_shared<Function>();
  function->builtin = &builtin;
  function->self = std::move(self);
  function->charge = Charge(budget_, kObjectBytes);
  return Value(FunctionPtr(std::move(function)));
}

SequencePtr Runtime::iterate(const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kSequence: {
      const SequencePtr& sequence = value.sequence();
      if (sequence->kind != SequenceKind::kIterator) return sequence;
      if (!std::exchange(sequence->is_consumed, true)) return sequence;
      break;
    }
    case Kind::kUndefined:
      break;
    case Kind::kText:
      for (size_t at = 0; at < value.bytes().size();) {
        const size_t size = char_size(value.bytes(), at);
        items.push_back(text(value.bytes().substr(at, size)));
        budget_.step();
        at += size;
      }
      break;
    case Kind::kDict:
      for (const Dict::Entry& entry : value.dict()->entries()) items.push_back(entry.key);
      break;
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kFunction:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      fail("'{}' object is not iterable", type_name(value));
  }
  return sequence(std::move(items)).sequence();
}

int64_t Runtime::length(const Value& value) {
  if (value.is(Kind::kUndefined)) return 0;
  if (value.is(Kind::kText)) return static_cast<int64_t>(value.text()->num_chars);
  if (value.is(Kind::kDict)) return static_cast<int64_t>(value.dict()->size());
  if (value.is(Kind::kSequence) && value.sequence()->kind != SequenceKind::kIterator)
    return static_cast<int64_t>(value.sequence()->items.size());
  fail("object of type '{}' has no len()", type_name(value));
}

}  // namespace lamina::jinja
