// Python's text functions that both filters and methods use.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

// str.replace(); a negative `max_count` means all.
Value replace_text(Runtime& runtime,
                   std::string_view text,
                   std::string_view old_part,
                   std::string_view new_part,
                   int64_t max_count);
// str.join() of str() of every item.
Value join_texts(Runtime& runtime, std::string_view separator, const std::vector<Value>& items);
// str.splitlines() without the line ends.
std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text);

// str(value) with & < > ' " as entities, unless it is markup already.
std::string escape_markup(Runtime& runtime, const Value& value);

}  // namespace lamina::jinja
