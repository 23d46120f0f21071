#include "text/jinja/builtin.h"

#include <algorithm>
#include <unordered_map>

#include "text/jinja/operators.h"

namespace lamina::jinja {
namespace {

using Table = std::unordered_map<std::string_view, const Builtin*>;

Table make_table(std::initializer_list<std::span<const Builtin>> parts) {
  Table table;
  for (const auto part : parts)
    for (const Builtin& builtin : part) table.emplace(builtin.name, &builtin);
  return table;
}

const Builtin* find_in(const Table& table, std::string_view name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace

const Value* Arguments::find(std::string_view name) const {
  for (const auto& [argument, value] : named)
    if (argument == name) return &value;
  return nullptr;
}

bool BoundArguments::flag(size_t parameter, bool fallback) const {
  return has(parameter) ? is_true((*this)[parameter]) : fallback;
}

int64_t BoundArguments::integer(size_t parameter, int64_t fallback) const {
  if (!has(parameter)) return fallback;
  const Value& value = (*this)[parameter];
  require_defined(value);
  const std::optional<int64_t> number = value.integer();
  if (!number) fail("'{}' object cannot be interpreted as an integer", type_name(value));
  return *number;
}

const std::string& BoundArguments::text(size_t parameter) const {
  const Value& value = (*this)[parameter];
  require_defined(value);
  if (!value.is(Kind::kText)) fail("a str is needed here, not {}", type_name(value));
  return value.bytes();
}

const Builtin* find_filter(std::string_view name) {
  static const Table kTable =
      make_table({text_filters(), sequence_filters(), selection_filters(), number_filters()});
  return find_in(kTable, name);
}

const Builtin* find_test(std::string_view name) {
  static const Table kTable = make_table({all_tests()});
  return find_in(kTable, name);
}

const Builtin* find_global(std::string_view name) {
  static const Table kTable = make_table({global_functions()});
  return find_in(kTable, name);
}

std::string check_arguments(const Builtin& builtin,
                            size_t num_positional,
                            std::span<const std::string> names) {
  if (builtin.is_variadic) return {};
  const auto& parameters = builtin.parameters;
  if (num_positional > parameters.size())
    return fmt::format("'{}' takes at most {} arguments", builtin.name, parameters.size());
  std::vector<bool> is_given(parameters.size(), false);
  std::fill_n(is_given.begin(), num_positional, true);
  for (const std::string& name : names) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    if (found == parameters.end())
      return fmt::format("'{}' has no parameter '{}'", builtin.name, name);
    const auto index = static_cast<size_t>(found - parameters.begin());
    if (is_given[index])
      return fmt::format("'{}' is given its parameter '{}' twice", builtin.name, name);
    is_given[index] = true;
  }
  for (size_t i = 0; i < builtin.num_required; ++i) {
    if (!is_given[i])
      return fmt::format("'{}' needs its parameter '{}'", builtin.name, parameters[i]);
  }
  return {};
}

Value call_builtin(Runtime& runtime,
                   const Builtin& builtin,
                   const Value& self,
                   const Arguments& arguments) {
  runtime.budget().step();
  BoundArguments bound;
  bound.raw_ = &arguments;
  if (!builtin.is_variadic) {
    std::vector<std::string> names;
    names.reserve(arguments.named.size());
    for (const auto& [name, value] : arguments.named) names.push_back(name);
    const std::string problem = check_arguments(builtin, arguments.positional.size(), names);
    if (!problem.empty()) fail("{}", problem);
    const auto& parameters = builtin.parameters;
    bound.values_.resize(parameters.size());
    std::copy(arguments.positional.begin(), arguments.positional.end(), bound.values_.begin());
    for (const auto& [name, value] : arguments.named) {
      bound.values_[static_cast<size_t>(std::find(parameters.begin(), parameters.end(), name) -
                                        parameters.begin())] = value;
    }
  }
  return builtin.call(runtime, self, bound);
}

}  // namespace lamina::jinja
