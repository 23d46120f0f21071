#include "text/jinja/selection.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "text/jinja/access.h"
#include "text/jinja/operators.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

std::optional<int64_t> whole_number(std::string_view digits) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || digits.front() == '-')
    return std::nullopt;
  return number;
}

}  // namespace

AttributePath::AttributePath(Runtime& runtime, const Value& attribute) {
  if (attribute.is(Kind::kNone)) return;
  if (attribute.integer()) {
    parts_.push_back(attribute);
    return;
  }
  require_defined(attribute);
  if (!attribute.is(Kind::kText)) fail("an attribute is named by a str or an int");
  std::string_view rest = attribute.bytes();
  constexpr size_t kMaxParts = 16;
  while (parts_.size() < kMaxParts) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const std::optional<int64_t> number = whole_number(part);
    parts_.push_back(number ? Value(*number) : runtime.text(part));
    if (dot == std::string_view::npos) return;
    rest.remove_prefix(dot + 1);
  }
  fail("an attribute path has more than {} parts", kMaxParts);
}

Value AttributePath::of(Runtime& runtime, const Value& item, const Value* fallback) const {
  Value value = item;
  for (const Value& part : parts_) {
    runtime.budget().step();
    value = get_item(runtime, value, part);
    if (fallback != nullptr && value.is(Kind::kUndefined)) value = *fallback;
  }
  return value;
}

Value fold_case(Runtime& runtime, const Value& value) {
  if (!value.is(Kind::kText)) return value;
  runtime.budget().touch_chars(value.bytes().size());
  return runtime.text(to_lower(value.bytes()));
}

std::vector<Value> sort_by_keys(Runtime& runtime,
                                const std::vector<Value>& items,
                                const std::vector<Value>& keys,
                                bool is_reversed) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // A merge sort of our own: std::stable_sort may misbehave when keys have no order (nan).
  std::vector<size_t> merged(order.size());
  const auto comes_first = [&](size_t later, size_t earlier) {
    return is_reversed ? compare(runtime, Operator::kLess, keys[earlier], keys[later])
                       : compare(runtime, Operator::kLess, keys[later], keys[earlier]);
  };
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t begin = 0; begin < order.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, order.size());
      const size_t end = std::min(begin + 2 * width, order.size());
      size_t left = begin;
      size_t right = middle;
      for (size_t at = begin; at < end; ++at) {
        const bool take_right =
            left == middle || (right < end && comes_first(order[right], order[left]));
        merged[at] = take_right ? order[right++] : order[left++];
      }
    }
    order.swap(merged);
  }
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (const size_t index : order) sorted.push_back(items[index]);
  return sorted;
}

}  // namespace lamina::jinja
