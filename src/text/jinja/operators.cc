#include "text/jinja/operators.h"

#include <algorithm>
#include <compare>
#include <limits>

#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

// 64 bits of mantissa or more: holds every int64_t and every double, so that mixed comparisons are
// exact as in Python.
using Exact = long double;
static_assert(std::numeric_limits<Exact>::digits >= 64);

Exact exact(const Value& number) {
  if (number.is(Kind::kFloat)) return static_cast<Exact>(number.as_float());
  return static_cast<Exact>(*number.integer());
}

bool equal_items(Runtime& runtime, const Sequence& left, const Sequence& right) {
  if (left.kind != right.kind) return false;
  if (&left == &right) return true;
  if (left.kind == SequenceKind::kIterator || left.kind == SequenceKind::kView) return false;
  if (left.items.size() != right.items.size()) return false;
  for (size_t i = 0; i < left.items.size(); ++i)
    if (!is_equal(runtime, left.items[i], right.items[i])) return false;
  return true;
}

bool equal_dicts(Runtime& runtime, const Dict& left, const Dict& right) {
  if (&left == &right) return true;
  if (left.size() != right.size()) return false;
  for (const Dict::Entry& entry : left.entries()) {
    const Value* other = right.find(entry.key);
    if (other == nullptr || !is_equal(runtime, entry.value, *other)) return false;
  }
  return true;
}

std::partial_ordering order(Runtime& runtime, Operator op, const Value& left, const Value& right);

std::partial_ordering order_items(Runtime& runtime,
                                  Operator op,
                                  const Sequence& left,
                                  const Sequence& right) {
  const size_t shared = std::min(left.items.size(), right.items.size());
  for (size_t i = 0; i < shared; ++i) {
    if (!is_equal(runtime, left.items[i], right.items[i]))
      return order(runtime, op, left.items[i], right.items[i]);
  }
  return left.items.size() <=> right.items.size();
}

std::partial_ordering order(Runtime& runtime, Operator op, const Value& left, const Value& right) {
  runtime.budget().step();
  require_defined(left);
  require_defined(right);
  if (left.is_number() && right.is_number()) return exact(left) <=> exact(right);
  if (left.is(Kind::kText) && right.is(Kind::kText)) {
    runtime.budget().touch_bytes(std::min(left.bytes().size(), right.bytes().size()));
    return left.bytes() <=> right.bytes();  // UTF-8 sorts as its code points do
  }
  if (left.is(Kind::kSequence) && right.is(Kind::kSequence)) {
    const SequenceKind kind = left.sequence()->kind;
    if (kind == right.sequence()->kind &&
        (kind == SequenceKind::kList || kind == SequenceKind::kTuple))
      return order_items(runtime, op, *left.sequence(), *right.sequence());
  }
  fail("'{}' not supported between instances of '{}' and '{}'",
       operator_name(op),
       type_name(left),
       type_name(right));
}

bool contains_item(Runtime& runtime, const Sequence& sequence, const Value& item) {
  for (const Value& candidate : sequence.items)
    if (is_equal(runtime, candidate, item)) return true;
  return false;
}

}  // namespace

std::string_view operator_name(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "**";
    case Operator::kEqual:
      return "==";
    case Operator::kNotEqual:
      return "!=";
    case Operator::kLess:
      return "<";
    case Operator::kLessOrEqual:
      return "<=";
    case Operator::kGreater:
      return ">";
    case Operator::kGreaterOrEqual:
      return ">=";
    case Operator::kIn:
      return "in";
    case Operator::kNotIn:
      return "not in";
  }
  return "?";
}

bool is_true(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.as_bool();
    case Kind::kInt:
      return value.as_int() != 0;
    case Kind::kFloat:
      return value.as_float() != 0;
    case Kind::kText:
      return !value.bytes().empty();
    case Kind::kSequence:
      return value.sequence()->kind == SequenceKind::kIterator || !value.sequence()->items.empty();
    case Kind::kDict:
      return value.dict()->size() > 0;
    case Kind::kFunction:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      return true;
  }
  return true;
}

bool is_equal(Runtime& runtime, const Value& left, const Value& right) {
  runtime.budget().step();
  if (left.is_number() && right.is_number()) return exact(left) == exact(right);
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kText:
      runtime.budget().touch_bytes(std::min(left.bytes().size(), right.bytes().size()));
      return left.bytes() == right.bytes();
    case Kind::kSequence:
      return equal_items(runtime, *left.sequence(), *right.sequence());
    case Kind::kDict:
      return equal_dicts(runtime, *left.dict(), *right.dict());
    case Kind::kUndefined:
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kFunction:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      return left.is_same(right);
  }
  return false;
}

bool compare(Runtime& runtime, Operator op, const Value& left, const Value& right) {
  switch (op) {
    case Operator::kEqual:
      return is_equal(runtime, left, right);
    case Operator::kNotEqual:
      return !is_equal(runtime, left, right);
    case Operator::kLess:
      return order(runtime, op, left, right) < 0;
    case Operator::kLessOrEqual:
      return order(runtime, op, left, right) <= 0;
    case Operator::kGreater:
      return order(runtime, op, left, right) > 0;
    case Operator::kGreaterOrEqual:
      return order(runtime, op, left, right) >= 0;
    case Operator::kIn:
      return contains(runtime, right, left);
    case Operator::kNotIn:
      return !contains(runtime, right, left);
    case Operator::kAdd:
    case Operator::kSubtract:
    case Operator::kMultiply:
    case Operator::kDivide:
    case Operator::kFloorDivide:
    case Operator::kModulo:
    case Operator::kPower:
      break;
  }
  LAMINA_CHECK(false, "not a comparison");
  return false;
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kText:
      if (!item.is(Kind::kText))
        fail("'in <string>' requires string as left operand, not {}", type_name(item));
      runtime.budget().touch_bytes(container.bytes().size());
      return find_bytes(container.bytes(), item.bytes(), 0) != std::string::npos;
    case Kind::kDict:
      runtime.touch(item);
      if (!hash_key(item)) fail("unhashable type: '{}'", type_name(item));
      return container.dict()->find(item) != nullptr;
    case Kind::kUndefined:
    case Kind::kSequence:
      return contains_item(runtime, *runtime.iterate(container), item);
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kFunction:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
      break;
  }
  fail("argument of type '{}' is not iterable", type_name(container));
}

void require_defined(const Value& value) {
  if (value.is(Kind::kUndefined)) fail("{}", value.why_undefined());
}

}  // namespace lamina::jinja
