// Evaluator's expressions.
#include "text/jinja/access.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"

namespace lamina::jinja {

Value Evaluator::evaluate(const Expression& expression) {
  // Budget::leave() is not called on the way of an exception: that ends the rendering.
  runtime_.budget().step();
  runtime_.budget().enter();
  line_ = expression.line;
  Value value;
  switch (expression.kind) {
    case ExpressionKind::kConstant:
      value = expression.constant;
      break;
    case ExpressionKind::kName:
      value = name(expression);
      break;
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
      value = collection(expression);
      break;
    case ExpressionKind::kDict:
      value = dict(expression);
      break;
    case ExpressionKind::kAttribute:
      value = get_attribute(runtime_, evaluate(*expression.operands[0]), expression.name);
      break;
    case ExpressionKind::kItem: {
      const Value object = evaluate(*expression.operands[0]);
      value = get_item(runtime_, object, evaluate(*expression.operands[1]));
      break;
    }
    case ExpressionKind::kSlice:
      value = slice(expression);
      break;
    case ExpressionKind::kCall:
      value = call(expression, nullptr);
      break;
    case ExpressionKind::kFilter:
    case ExpressionKind::kTest:
      value = filter_or_test(expression);
      break;
    case ExpressionKind::kNot:
      value = Value(!is_true(evaluate(*expression.operands[0])));
      break;
    case ExpressionKind::kNegate:
      value = negate(evaluate(*expression.operands[0]));
      break;
    case ExpressionKind::kArithmetic:
      value = arithmetic_chain(expression);
      break;
    case ExpressionKind::kConcat:
      value = concat(expression);
      break;
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr:
      value = logical(expression);
      break;
    case ExpressionKind::kCompare:
      value = compare_chain(expression);
      break;
    case ExpressionKind::kConditional:
      value = conditional(expression);
      break;
  }
  runtime_.budget().leave();
  return value;
}

Value Evaluator::evaluate_or_none(const ExpressionPtr& expression) {
  return expression == nullptr ? Value() : evaluate(*expression);
}

Value Evaluator::name(const Expression& expression) {
  if (const Value* value = scope_->find(expression.name_id)) return *value;
  if (const Builtin* global = find_global(expression.name)) return runtime_.bind(*global, Value());
  return Value::undefined(fmt::format("'{}' is undefined", expression.name));
}

Value Evaluator::collection(const Expression& expression) {
  std::vector<Value> items;
  items.reserve(expression.operands.size());
  for (const ExpressionPtr& operand : expression.operands) items.push_back(evaluate(*operand));
  return runtime_.sequence(
      std::move(items),
      expression.kind == ExpressionKind::kList ? SequenceKind::kList : SequenceKind::kTuple);
}

Value Evaluator::dict(const Expression& expression) {
  Dict dict;
  for (size_t i = 0; i + 1 < expression.operands.size(); i += 2) {
    Value key = evaluate(*expression.operands[i]);
    runtime_.touch(key);
    dict.set(std::move(key), evaluate(*expression.operands[i + 1]));
  }
  return runtime_.dict(std::move(dict));
}

Value Evaluator::slice(const Expression& expression) {
  const Value object = evaluate(*expression.operands[0]);
  const Value start = evaluate_or_none(expression.operands[1]);
  const Value stop = evaluate_or_none(expression.operands[2]);
  return get_slice(runtime_, object, start, stop, evaluate_or_none(expression.operands[3]));
}

Value Evaluator::arithmetic_chain(const Expression& expression) {
  Value value = evaluate(*expression.operands[0]);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    value =
        arithmetic(runtime_, expression.operators[i], value, evaluate(*expression.operands[i + 1]));
  }
  return value;
}

Value Evaluator::concat(const Expression& expression) {
  TextBuilder text(runtime_);
  for (const ExpressionPtr& operand : expression.operands) append_str(text, evaluate(*operand));
  return text.take_value();
}

// The operand that decides, as in Python, not a bool.
Value Evaluator::logical(const Expression& expression) {
  const bool decides = expression.kind == ExpressionKind::kOr;
  Value value;
  for (const ExpressionPtr& operand : expression.operands) {
    value = evaluate(*operand);
    if (is_true(value) == decides) break;
  }
  return value;
}

Value Evaluator::compare_chain(const Expression& expression) {
  Value left = evaluate(*expression.operands[0]);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.operands[i + 1]);
    if (!compare(runtime_, expression.operators[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Evaluator::conditional(const Expression& expression) {
  if (is_true(evaluate(*expression.operands[0]))) return evaluate(*expression.operands[1]);
  if (expression.operands[2] != nullptr) return evaluate(*expression.operands[2]);
  return Value::undefined("the inline if-expression evaluated to false and no else was given");
}

Arguments Evaluator::arguments(const Expression& expression) {
  Arguments given;
  for (size_t i = 1; i < expression.operands.size(); ++i)
    given.positional.push_back(evaluate(*expression.operands[i]));
  for (const NamedArgument& argument : expression.named)
    given.named.emplace_back(argument.name, evaluate(*argument.value));
  return given;
}

Value Evaluator::filter_or_test(const Expression& expression) {
  const ExpressionPtr& subject = expression.operands[0];
  const Value input = subject == nullptr ? captured_ : evaluate(*subject);
  const Arguments given = arguments(expression);
  line_ = expression.line;
  return call_builtin(runtime_, *expression.builtin, input, given);
}

Value Evaluator::call(const Expression& expression, const Macro* caller) {
  const Value function = evaluate(*expression.operands[0]);
  const Arguments given = arguments(expression);
  line_ = expression.line;
  require_defined(function);
  if (function.is(Kind::kMacro)) return call_macro(function.macro(), given, caller);
  if (!function.is(Kind::kFunction)) fail("'{}' object is not callable", type_name(function));
  if (caller != nullptr) fail("a call block needs a macro");
  return call_builtin(runtime_, *function.function()->builtin, function.function()->self, given);
}

}  // namespace lamina::jinja
