// Tests: what may follow `is`, and what select and selectattr may name. Bools, as all Python
// numbers, are numbers; jinja2's `integer` and `float` leave them out.
#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

template <Kind K>
Value test_kind(Runtime&, const Value& subject, const BoundArguments&) {
  return Value(subject.is(K));
}

Value test_defined(Runtime&, const Value& subject, const BoundArguments&) {
  return Value(!subject.is(Kind::kUndefined));
}

template <bool Wanted>
Value test_bool(Runtime&, const Value& subject, const BoundArguments&) {
  return Value(subject.is(Kind::kBool) && subject.as_bool() == Wanted);
}

Value test_number(Runtime&, const Value& subject, const BoundArguments&) {
  return Value(subject.is_number());
}

Value test_iterable(Runtime&, const Value& subject, const BoundArguments&) {
  return Value(subject.is(Kind::kText) || subject.is(Kind::kSequence) || subject.is(Kind::kDict) ||
               subject.is(Kind::kUndefined) || subject.is(Kind::kLoop));
}

Value test_sequence(Runtime&, const Value& subject, const BoundArguments&) {
  if (subject.is(Kind::kSequence)) {
    return Value(subject.sequence()->kind != SequenceKind::kView &&
                 subject.sequence()->kind != SequenceKind::kIterator);
  }
  return Value(subject.is(Kind::kText) || subject.is(Kind::kDict) || subject.is(Kind::kUndefined));
}

// Undefined is: its class has a __call__, which raises.
Value test_callable(Runtime&, const Value& subject, const BoundArguments&) {
  return Value(subject.is(Kind::kFunction) || subject.is(Kind::kMacro) || subject.is(Kind::kLoop) ||
               subject.is(Kind::kUndefined));
}

bool has_case(Runtime& runtime, const Value& subject, std::string (*map)(std::string_view)) {
  const TextPtr text = to_text(runtime, subject);
  runtime.budget().touch_chars(text->bytes.size());
  return map(text->bytes) == text->bytes && to_upper(text->bytes) != to_lower(text->bytes);
}

Value test_lower(Runtime& runtime, const Value& subject, const BoundArguments&) {
  return Value(has_case(runtime, subject, to_lower));
}

Value test_upper(Runtime& runtime, const Value& subject, const BoundArguments&) {
  return Value(has_case(runtime, subject, to_upper));
}

bool leaves_rest(Runtime& runtime, const Value& subject, const Value& divisor, int64_t rest) {
  return is_equal(runtime, arithmetic(runtime, Operator::kModulo, subject, divisor), Value(rest));
}

Value test_odd(Runtime& runtime, const Value& subject, const BoundArguments&) {
  return Value(leaves_rest(runtime, subject, Value(int64_t{2}), 1));
}

Value test_even(Runtime& runtime, const Value& subject, const BoundArguments&) {
  return Value(leaves_rest(runtime, subject, Value(int64_t{2}), 0));
}

Value test_divisible(Runtime& runtime, const Value& subject, const BoundArguments& arguments) {
  return Value(leaves_rest(runtime, subject, arguments[0], 0));
}

Value test_same(Runtime& runtime, const Value& subject, const BoundArguments& arguments) {
  runtime.touch(subject);
  return Value(subject.is_same(arguments[0]));
}

template <Operator Op>
Value test_compare(Runtime& runtime, const Value& subject, const BoundArguments& arguments) {
  return Value(compare(runtime, Op, subject, arguments[0]));
}

Value test_filter(Runtime& runtime, const Value& subject, const BoundArguments&) {
  runtime.touch(subject);
  return Value(subject.is(Kind::kText) && find_filter(subject.bytes()) != nullptr);
}

Value test_test(Runtime& runtime, const Value& subject, const BoundArguments&) {
  runtime.touch(subject);
  return Value(subject.is(Kind::kText) && find_test(subject.bytes()) != nullptr);
}

}  // namespace

std::span<const Builtin> all_tests() {
  static const std::vector<Builtin> kTests = {
      {"defined", test_defined},
      {"undefined", test_kind<Kind::kUndefined>},
      {"none", test_kind<Kind::kNone>},
      {"string", test_kind<Kind::kText>},
      {"mapping", test_kind<Kind::kDict>},
      {"boolean", test_kind<Kind::kBool>},
      {"integer", test_kind<Kind::kInt>},
      {"float", test_kind<Kind::kFloat>},
      {"number", test_number},
      {"true", test_bool<true>},
      {"false", test_bool<false>},
      {"iterable", test_iterable},
      {"sequence", test_sequence},
      {"callable", test_callable},
      {"lower", test_lower},
      {"upper", test_upper},
      {"odd", test_odd},
      {"even", test_even},
      {"divisibleby", test_divisible, {"num"}, 1},
      {"sameas", test_same, {"other"}, 1},
      {"filter", test_filter},
      {"test", test_test},
      {"in", test_compare<Operator::kIn>, {"seq"}, 1},
      {"==", test_compare<Operator::kEqual>, {"other"}, 1},
      {"eq", test_compare<Operator::kEqual>, {"other"}, 1},
      {"equalto", test_compare<Operator::kEqual>, {"other"}, 1},
      {"!=", test_compare<Operator::kNotEqual>, {"other"}, 1},
      {"ne", test_compare<Operator::kNotEqual>, {"other"}, 1},
      {"<", test_compare<Operator::kLess>, {"other"}, 1},
      {"lt", test_compare<Operator::kLess>, {"other"}, 1},
      {"lessthan", test_compare<Operator::kLess>, {"other"}, 1},
      {"<=", test_compare<Operator::kLessOrEqual>, {"other"}, 1},
      {"le", test_compare<Operator::kLessOrEqual>, {"other"}, 1},
      {">", test_compare<Operator::kGreater>, {"other"}, 1},
      {"gt", test_compare<Operator::kGreater>, {"other"}, 1},
      {"greaterthan", test_compare<Operator::kGreater>, {"other"}, 1},
      {">=", test_compare<Operator::kGreaterOrEqual>, {"other"}, 1},
      {"ge", test_compare<Operator::kGreaterOrEqual>, {"other"}, 1},
  };
  return kTests;
}

}  // namespace lamina::jinja
