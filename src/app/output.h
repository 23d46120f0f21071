// Where programs that print and end write to: a file, or standard output.
#pragma once

#include <string>

namespace lamina::app {

// An empty path: standard output. Throws Error kUnavailable.
void write_output(const std::string& path, const std::string& text);

}  // namespace lamina::app
