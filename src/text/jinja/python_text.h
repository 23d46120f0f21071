// How Python prints values: str() for output and concatenation, repr() inside lists and dicts.
// Iterators, ranges, views, functions and namespaces have no text: they are refused by name.
#pragma once

#include <string>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

// The shortest decimal that reads back as `number`: "1.0", "1e+16", "nan".
std::string float_repr(double number);

void append_str(TextBuilder& out, const Value& value);
void append_repr(TextBuilder& out, const Value& value);

// str(): a text stays itself.
TextPtr to_text(Runtime& runtime, const Value& value);

// repr() of a text cut to a length that suits a message.
std::string quoted(std::string_view text);

}  // namespace lamina::jinja
