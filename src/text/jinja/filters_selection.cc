// Filters that apply a test or a filter to every item: select, reject, selectattr, rejectattr, map.
#include "text/jinja/access.h"
#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/selection.h"

namespace lamina::jinja {
namespace {

const std::string& builtin_name(const Value& name) {
  require_defined(name);
  if (!name.is(Kind::kText)) fail("a filter or test is named by a str, not {}", type_name(name));
  return name.bytes();
}

// The arguments after the first `count`.
Arguments after(const Arguments& arguments, size_t count) {
  return {.positional = {arguments.positional.begin() + static_cast<ptrdiff_t>(count),
                         arguments.positional.end()},
          .named = arguments.named};
}

// jinja2 takes whatever is false, None above all, for an empty sequence here.
SequencePtr items_of(Runtime& runtime, const Value& input) {
  if (!is_true(input)) return runtime.sequence({}).sequence();
  return runtime.iterate(input);
}

template <bool Keeps, bool ByAttribute>
Value filter_select(Runtime& runtime, const Value& input, const BoundArguments& bound) {
  const Arguments& given = bound.raw();
  constexpr size_t kTestIndex = ByAttribute ? 1 : 0;
  if (given.positional.size() < kTestIndex) fail("Missing parameter for attribute name");
  const AttributePath path(runtime, ByAttribute ? given.positional[0] : Value());
  const Builtin* test = nullptr;
  Arguments arguments;
  if (given.positional.size() > kTestIndex) {
    const std::string& name = builtin_name(given.positional[kTestIndex]);
    test = find_test(name);
    if (test == nullptr) fail("No test named {}.", quoted(name));
    arguments = after(given, kTestIndex + 1);
  }
  std::vector<Value> kept;
  const SequencePtr items = items_of(runtime, input);
  for (const Value& item : items->items) {
    const Value subject = path.of(runtime, item);
    const bool passes = test == nullptr ? is_true(subject)
                                        : is_true(call_builtin(runtime, *test, subject, arguments));
    if (passes == Keeps) kept.push_back(item);
  }
  return runtime.sequence(std::move(kept), SequenceKind::kIterator);
}

std::vector<Value> map_attribute(Runtime& runtime, const Value& input, const Arguments& given) {
  for (const auto& [name, value] : given.named) {
    if (name != "attribute" && name != "default")
      fail("Unexpected keyword argument {}", quoted(name));
  }
  const AttributePath path(runtime, *given.find("attribute"));
  const Value* fallback = given.find("default");
  if (fallback != nullptr && fallback->is(Kind::kNone)) fallback = nullptr;
  std::vector<Value> mapped;
  const SequencePtr items = items_of(runtime, input);
  for (const Value& item : items->items) mapped.push_back(path.of(runtime, item, fallback));
  return mapped;
}

Value filter_map(Runtime& runtime, const Value& input, const BoundArguments& bound) {
  const Arguments& given = bound.raw();
  std::vector<Value> mapped;
  if (given.positional.empty() && given.find("attribute") != nullptr) {
    mapped = map_attribute(runtime, input, given);
  } else {
    if (given.positional.empty()) fail("map requires a filter argument");
    const std::string& name = builtin_name(given.positional[0]);
    const Builtin* filter = find_filter(name);
    if (filter == nullptr) fail("No filter named {}.", quoted(name));
    const Arguments arguments = after(given, 1);
    runtime.budget().enter();  // a map may map by map
    const SequencePtr items = items_of(runtime, input);
    for (const Value& item : items->items)
      mapped.push_back(call_builtin(runtime, *filter, item, arguments));
    runtime.budget().leave();
  }
  return runtime.sequence(std::move(mapped), SequenceKind::kIterator);
}

}  // namespace

std::span<const Builtin> selection_filters() {
  static const std::vector<Builtin> kFilters = {
      {.name = "select", .call = filter_select<true, false>, .is_variadic = true},
      {.name = "reject", .call = filter_select<false, false>, .is_variadic = true},
      {.name = "selectattr", .call = filter_select<true, true>, .is_variadic = true},
      {.name = "rejectattr", .call = filter_select<false, true>, .is_variadic = true},
      {.name = "map", .call = filter_map, .is_variadic = true},
  };
  return kFilters;
}

}  // namespace lamina::jinja
