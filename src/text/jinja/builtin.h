// Builtins: the filters, tests, methods and global functions of the subset, one row each in the
// table of their file. Looking one up by name is how the parser refuses what the subset lacks.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

// As written at the call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  [[nodiscard]] const Value* find(std::string_view name) const;
};

// Bound to a builtin's parameters, in their order.
class BoundArguments {
 public:
  [[nodiscard]] bool has(size_t parameter) const {
    return parameter < values_.size() && values_[parameter].has_value();
  }
  // Needs has().
  [[nodiscard]] const Value& operator[](size_t parameter) const { return *values_[parameter]; }
  // None if the argument is not given.
  [[nodiscard]] Value get(size_t parameter) const {
    return has(parameter) ? *values_[parameter] : Value();
  }
  [[nodiscard]] bool flag(size_t parameter, bool fallback) const;
  [[nodiscard]] int64_t integer(size_t parameter, int64_t fallback) const;
  // Throws if the argument is not a text. Valid as long as the arguments.
  [[nodiscard]] const std::string& text(size_t parameter) const;
  // All arguments as written: what a variadic builtin reads.
  [[nodiscard]] const Arguments& raw() const { return *raw_; }

 private:
  friend Value call_builtin(Runtime&, const Builtin&, const Value&, const Arguments&);
  std::vector<std::optional<Value>> values_;
  const Arguments* raw_ = nullptr;
};

struct Builtin {
  using Call = Value (*)(Runtime& runtime, const Value& self, const BoundArguments& arguments);

  std::string_view name;
  Call call;
  std::vector<std::string_view> parameters = {};
  size_t num_required = 0;
  bool is_variadic = false;  // parameters are not checked nor bound
};

// Null if the subset has no such builtin.
const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_method(const Value& self, std::string_view name);
const Builtin* find_global(std::string_view name);

// What is wrong with a call of that many positional arguments and these names; empty if nothing.
std::string check_arguments(const Builtin& builtin,
                            size_t num_positional,
                            std::span<const std::string> names);

// `self` is a filter's input, a test's subject, a method's object.
Value call_builtin(Runtime& runtime,
                   const Builtin& builtin,
                   const Value& self,
                   const Arguments& arguments);

// The tables, each in the file of its name.
std::span<const Builtin> text_filters();
std::span<const Builtin> sequence_filters();
std::span<const Builtin> selection_filters();
std::span<const Builtin> number_filters();
std::span<const Builtin> all_tests();
std::span<const Builtin> text_methods();
std::span<const Builtin> global_functions();

}  // namespace lamina::jinja
