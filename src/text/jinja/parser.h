// Parses a whole template. Tags that the subset lacks are refused by name, with line and column.
#pragma once

#include <cstdint>
#include <string_view>

#include "text/jinja/ast.h"

namespace lamina::jinja {

// Throws Error kInvalidArgument. `max_depth` bounds the nesting of blocks and expressions.
Template parse_template(std::string_view source, int32_t max_depth);

}  // namespace lamina::jinja
