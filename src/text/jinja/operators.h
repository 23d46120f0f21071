// Python's operators on values. Type mismatches throw what Python says of them.
#pragma once

#include <cstdint>
#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,
  kIn,
  kNotIn,
};

std::string_view operator_name(Operator op);

bool is_true(const Value& value);
bool is_equal(Runtime& runtime, const Value& left, const Value& right);
// One of the eight comparisons.
bool compare(Runtime& runtime, Operator op, const Value& left, const Value& right);
bool contains(Runtime& runtime, const Value& container, const Value& item);
// One of the seven arithmetic operators.
Value arithmetic(Runtime& runtime, Operator op, const Value& left, const Value& right);
Value negate(const Value& value);

// Throws why `value` is undefined, if it is.
void require_defined(const Value& value);

}  // namespace lamina::jinja
