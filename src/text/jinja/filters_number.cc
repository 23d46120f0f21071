// Filters that make or reduce numbers.
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"
#include "text/jinja/selection.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

// Without white space, and without Python's underscores between digits; empty if one is misplaced.
std::string plain_digits(std::string_view text) {
  text = strip(text);
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      plain += text[i];
      continue;
    }
    const auto is_digit = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return {};
  }
  return plain;
}

// Python's int(text, base); empty where it raises ValueError.
std::optional<int64_t> parse_integer(std::string_view text, int base) {
  std::string digits = plain_digits(text);
  bool is_negative = false;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) {
    is_negative = digits[0] == '-';
    digits.erase(0, 1);
  }
  const auto drop_prefix = [&digits](char letter) {
    if (digits.size() > 2 && digits[0] == '0' && (digits[1] | 0x20) == letter) digits.erase(0, 2);
  };
  if (base == 16) drop_prefix('x');
  if (base == 8) drop_prefix('o');
  if (base == 2) drop_prefix('b');
  if (digits.empty() || digits[0] == '-') return std::nullopt;
  if (is_negative) digits.insert(0, 1, '-');
  int64_t number = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (end != digits.data() + digits.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) fail("an integer exceeds 64 bits");
  return error == std::errc() ? std::optional(number) : std::nullopt;
}

// Python's float(text); empty where it raises ValueError.
std::optional<double> parse_float(std::string_view text) {
  std::string digits = to_lower(plain_digits(text));
  bool is_negative = false;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) {
    is_negative = digits[0] == '-';
    digits.erase(0, 1);
  }
  double number = 0;
  if (digits == "inf" || digits == "infinity") {
    number = std::numeric_limits<double>::infinity();
  } else if (digits == "nan") {
    number = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (digits.empty() || digits.find_first_not_of("0123456789.e+-") != std::string::npos ||
        digits[0] == '-')
      return std::nullopt;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (end != digits.data() + digits.size()) return std::nullopt;
    if (error == std::errc::result_out_of_range) number = std::strtod(digits.c_str(), nullptr);
  }
  return is_negative ? -number : number;
}

std::optional<int64_t> truncated(double number) {
  if (std::isnan(number) || std::isinf(number)) return std::nullopt;
  if (std::abs(number) >= 0x1p63) fail("an integer exceeds 64 bits");
  return static_cast<int64_t>(number);
}

Value filter_int(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  require_defined(input);
  const Value fallback = arguments.has(0) ? arguments[0] : Value(int64_t{0});
  const int64_t base = arguments.integer(1, 10);
  if (base < 2 || base > 36) fail("int() base must be >= 2 and <= 36");
  std::optional<int64_t> number = input.integer();
  if (input.is(Kind::kFloat)) number = truncated(input.as_float());
  if (input.is(Kind::kText)) {
    runtime.budget().touch_chars(input.bytes().size());
    number = parse_integer(input.bytes(), static_cast<int>(base));
    if (!number) {
      if (const std::optional<double> decimal = parse_float(input.bytes()))
        number = truncated(*decimal);
    }
  }
  return number ? Value(*number) : fallback;
}

Value filter_float(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  require_defined(input);
  if (input.is(Kind::kFloat)) return input;
  if (const std::optional<int64_t> number = input.integer())
    return Value(static_cast<double>(*number));
  if (input.is(Kind::kText)) {
    runtime.budget().touch_chars(input.bytes().size());
    if (const std::optional<double> number = parse_float(input.bytes())) return Value(*number);
  }
  return arguments.has(0) ? arguments[0] : Value(0.0);
}

void require_number(const Value& value, std::string_view filter) {
  require_defined(value);
  if (!value.is_number()) fail("bad operand type for {}: '{}'", filter, type_name(value));
}

Value filter_abs(Runtime&, const Value& input, const BoundArguments&) {
  require_number(input, "abs()");
  if (input.is(Kind::kFloat)) return Value(std::abs(input.as_float()));
  const int64_t number = *input.integer();
  return number < 0 ? negate(Value(number)) : Value(number);
}

// Correctly rounded at `precision` decimals, ties of the exact binary value to even, as Python
// does.
double round_decimals(double number, int64_t precision) {
  char buffer[512];
  std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), number);
  return std::strtod(buffer, nullptr);
}

Value filter_round(Runtime&, const Value& input, const BoundArguments& arguments) {
  require_number(input, "round()");
  const int64_t precision = arguments.integer(0, 0);
  constexpr int64_t kMaxPrecision = 15;
  if (precision < 0 || precision > kMaxPrecision)
    fail("round supports a precision of 0 to {}, not {}", kMaxPrecision, precision);
  const std::string method = arguments.has(1) ? arguments.text(1) : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    fail("method must be common, ceil or floor");
  const std::optional<int64_t> whole = input.integer();
  if (method == "common") {
    if (whole) return Value(*whole);
    const double number = input.as_float();
    return Value(std::isfinite(number) ? round_decimals(number, precision) : number);
  }
  const double number = whole ? static_cast<double>(*whole) : input.as_float();
  if (!std::isfinite(number)) fail("cannot convert float {} to integer", number);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = number * scale;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value filter_sum(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const AttributePath path(runtime, arguments.get(0));
  Value sum = arguments.has(1) ? arguments[1] : Value(int64_t{0});
  if (sum.is(Kind::kText)) fail("sum() can't sum strings");
  const SequencePtr items = runtime.iterate(input);
  for (const Value& item : items->items)
    sum = arithmetic(runtime, Operator::kAdd, sum, path.of(runtime, item));
  return sum;
}

template <Operator Better>
Value filter_extreme(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const bool is_case_sensitive = arguments.flag(0, false);
  const AttributePath path(runtime, arguments.get(1));
  const SequencePtr items = runtime.iterate(input);
  if (items->items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : items->items) {
    Value key = path.of(runtime, item);
    if (!is_case_sensitive) key = fold_case(runtime, key);
    if (best != nullptr && !compare(runtime, Better, key, best_key)) continue;
    best = &item;
    best_key = std::move(key);
  }
  return *best;
}

}  // namespace

std::span<const Builtin> number_filters() {
  static const std::vector<Builtin> kFilters = {
      {"int", filter_int, {"default", "base"}},
      {"float", filter_float, {"default"}},
      {"abs", filter_abs},
      {"round", filter_round, {"precision", "method"}},
      {"sum", filter_sum, {"attribute", "start"}},
      {"min", filter_extreme<Operator::kLess>, {"case_sensitive", "attribute"}},
      {"max", filter_extreme<Operator::kGreater>, {"case_sensitive", "attribute"}},
  };
  return kFilters;
}

}  // namespace lamina::jinja
