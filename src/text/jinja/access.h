// value.name, value[key] and value[start:stop:step], with jinja2's fallback from one to the other
// and its sandbox: what would change a list or dict is undefined.
#pragma once

#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

Value get_attribute(Runtime& runtime, const Value& value, std::string_view name);
Value get_item(Runtime& runtime, const Value& value, const Value& key);
// None stands for a bound that is left out.
Value get_slice(
    Runtime& runtime, const Value& value, const Value& start, const Value& stop, const Value& step);

}  // namespace lamina::jinja
