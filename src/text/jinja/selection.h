// What filters that pick or compare items share: attribute paths ("function.name", "0.id") and keys
// that ignore case.
#pragma once

#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

// Follows a dotted path, or a whole number, from an item; None gives the item itself.
class AttributePath {
 public:
  AttributePath(Runtime& runtime, const Value& attribute);

  // `fallback`, if not null, replaces whatever is undefined on the way.
  [[nodiscard]] Value of(Runtime& runtime,
                         const Value& item,
                         const Value* fallback = nullptr) const;

 private:
  std::vector<Value> parts_;
};

// The value itself, or its lower case if it is text.
Value fold_case(Runtime& runtime, const Value& value);

// Stable, by `<` of the keys; reversed as Python's sorted(reverse=True), which stays stable.
std::vector<Value> sort_by_keys(Runtime& runtime,
                                const std::vector<Value>& items,
                                const std::vector<Value>& keys,
                                bool is_reversed);

}  // namespace lamina::jinja
