// Python's + - * / // % ** and unary minus. Integers are 64 bits wide: past that is an error.
#include <cmath>

#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/text_functions.h"

namespace lamina::jinja {
namespace {

[[noreturn]] void unsupported(Operator op, const Value& left, const Value& right) {
  require_defined(left);
  require_defined(right);
  fail("unsupported operand type(s) for {}: '{}' and '{}'",
       operator_name(op),
       type_name(left),
       type_name(right));
}

[[noreturn]] void overflow() {
  fail("the result of integer arithmetic exceeds 64 bits");
}

int64_t floor_divide(int64_t left, int64_t right) {
  if (right == 0) fail("integer division or modulo by zero");
  if (right == -1) {
    if (left == INT64_MIN) overflow();
    return -left;
  }
  const int64_t quotient = left / right;
  return left % right != 0 && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

int64_t floor_modulo(int64_t left, int64_t right) {
  if (right == 0) fail("integer division or modulo by zero");
  if (right == -1) return 0;
  const int64_t rest = left % right;
  return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
}

double floor_modulo(double left, double right) {
  if (right == 0) fail("float modulo by zero");
  const double rest = std::fmod(left, right);
  if (rest == 0) return std::copysign(0.0, right);
  return (rest < 0) != (right < 0) ? rest + right : rest;
}

double floor_divide(double left, double right) {
  if (right == 0) fail("float floor division by zero");
  const double rest = std::fmod(left, right);
  double quotient = (left - rest) / right;
  if (rest != 0 && (right < 0) != (rest < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, left / right);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;  // the quotient is a hair below a whole number
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) fail("0.0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t power = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(power, base, &power)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return Value(power);
}

Value integer_arithmetic(Operator op, int64_t left, int64_t right) {
  int64_t result = 0;
  bool has_overflow = false;
  switch (op) {
    case Operator::kAdd:
      has_overflow = __builtin_add_overflow(left, right, &result);
      break;
    case Operator::kSubtract:
      has_overflow = __builtin_sub_overflow(left, right, &result);
      break;
    case Operator::kMultiply:
      has_overflow = __builtin_mul_overflow(left, right, &result);
      break;
    case Operator::kDivide:
      if (right == 0) fail("division by zero");
      return Value(static_cast<double>(left) / static_cast<double>(right));
    case Operator::kFloorDivide:
      return Value(floor_divide(left, right));
    case Operator::kModulo:
      return Value(floor_modulo(left, right));
    case Operator::kPower:
      return integer_power(left, right);
    case Operator::kEqual:
    case Operator::kNotEqual:
    case Operator::kLess:
    case Operator::kLessOrEqual:
    case Operator::kGreater:
    case Operator::kGreaterOrEqual:
    case Operator::kIn:
    case Operator::kNotIn:
      LAMINA_CHECK(false, "not an arithmetic operator");
  }
  if (has_overflow) overflow();
  return Value(result);
}

double float_power(double base, double exponent) {
  if (base == 0 && exponent < 0) fail("0.0 cannot be raised to a negative power");
  const double power = std::pow(base, exponent);
  if (std::isnan(power) && !std::isnan(base) && !std::isnan(exponent))
    fail("a negative number to a fractional power is not supported");
  if (std::isinf(power) && !std::isinf(base) && !std::isinf(exponent)) fail("Result too large");
  return power;
}

Value float_arithmetic(Operator op, double left, double right) {
  switch (op) {
    case Operator::kAdd:
      return Value(left + right);
    case Operator::kSubtract:
      return Value(left - right);
    case Operator::kMultiply:
      return Value(left * right);
    case Operator::kDivide:
      if (right == 0) fail("float division by zero");
      return Value(left / right);
    case Operator::kFloorDivide:
      return Value(floor_divide(left, right));
    case Operator::kModulo:
      return Value(floor_modulo(left, right));
    case Operator::kPower:
      return Value(float_power(left, right));
    case Operator::kEqual:
    case Operator::kNotEqual:
    case Operator::kLess:
    case Operator::kLessOrEqual:
    case Operator::kGreater:
    case Operator::kGreaterOrEqual:
    case Operator::kIn:
    case Operator::kNotIn:
      break;
  }
  LAMINA_CHECK(false, "not an arithmetic operator");
  return {};
}

// Markup escapes whatever plain text it is joined to, on either side.
Value add_texts(Runtime& runtime, const Value& left, const Value& right) {
  const bool is_safe = left.text()->is_safe || right.text()->is_safe;
  TextBuilder sum(runtime);
  for (const Value* part : {&left, &right}) {
    if (is_safe) {
      sum.append(escape_markup(runtime, *part));
    } else {
      sum.append(part->bytes());
    }
  }
  return sum.take_value(is_safe);
}

Value add_sequences(Runtime& runtime, const Sequence& left, const Sequence& right) {
  runtime.budget().touch_items(left.items.size() + right.items.size());
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return runtime.sequence(std::move(items), left.kind);
}

bool is_list_or_tuple(const Value& value) {
  return value.is(Kind::kSequence) && (value.sequence()->kind == SequenceKind::kList ||
                                       value.sequence()->kind == SequenceKind::kTuple);
}

Value repeat_text(Runtime& runtime, const Text& text, int64_t count) {
  TextBuilder repeated(runtime);
  if (!text.bytes.empty()) {
    for (int64_t i = 0; i < count; ++i) {
      repeated.append(text.bytes);
      runtime.budget().touch_bytes(text.bytes.size());
    }
  }
  return repeated.take_value(text.is_safe);
}

Value repeat_items(Runtime& runtime, const Sequence& sequence, int64_t count) {
  std::vector<Value> items;
  Charge charge(runtime.budget(), 0);  // before the copies are made, not after
  if (!sequence.items.empty()) {
    for (int64_t i = 0; i < count; ++i) {
      charge.grow(sequence.items.size() * sizeof(Value));
      runtime.budget().step();
      runtime.budget().touch_items(sequence.items.size());
      items.insert(items.end(), sequence.items.begin(), sequence.items.end());
    }
  }
  return runtime.sequence(std::move(items), sequence.kind);
}

Value repeat(Runtime& runtime, const Value& left, const Value& right) {
  const bool count_first = left.integer().has_value();
  const Value& repeated = count_first ? right : left;
  const std::optional<int64_t> count = (count_first ? left : right).integer();
  if (count && repeated.is(Kind::kText)) return repeat_text(runtime, *repeated.text(), *count);
  if (count && is_list_or_tuple(repeated))
    return repeat_items(runtime, *repeated.sequence(), *count);
  unsupported(Operator::kMultiply, left, right);
}

}  // namespace

Value arithmetic(Runtime& runtime, Operator op, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    const std::optional<int64_t> a = left.integer();
    const std::optional<int64_t> b = right.integer();
    if (a && b) return integer_arithmetic(op, *a, *b);
    return float_arithmetic(op,
                            a ? static_cast<double>(*a) : left.as_float(),
                            b ? static_cast<double>(*b) : right.as_float());
  }
  if (op == Operator::kAdd && left.is(Kind::kText) && right.is(Kind::kText))
    return add_texts(runtime, left, right);
  if (op == Operator::kAdd && is_list_or_tuple(left) && is_list_or_tuple(right) &&
      left.sequence()->kind == right.sequence()->kind)
    return add_sequences(runtime, *left.sequence(), *right.sequence());
  if (op == Operator::kMultiply) return repeat(runtime, left, right);
  if (op == Operator::kModulo && left.is(Kind::kText))
    fail("string formatting with % is not supported");
  unsupported(op, left, right);
}

Value negate(const Value& value) {
  require_defined(value);
  if (value.is(Kind::kFloat)) return Value(-value.as_float());
  const std::optional<int64_t> number = value.integer();
  if (!number) fail("bad operand type for unary -: '{}'", type_name(value));
  if (*number == INT64_MIN) overflow();
  return Value(-*number);
}

}  // namespace lamina::jinja
